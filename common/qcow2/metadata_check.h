// SPDX-License-Identifier: Apache-2.0
//
// Goes once over all that an image's tables say, before anything of it is
// believed: each entry is sound (cluster.h), each host cluster has one owner
// (ownership.h), and what is needed lies within the file. An image that passes
// holds no more data than its file has bytes for, so that reading it ends.
//
// Each step costs a constant for an entry that the file really holds; memory is
// bounded (some 200 MiB at the very worst, some MiB for a TiB of an ordinary
// image). Snapshots and bitmaps of the image are not looked into, but that
// their tables are within the file. Refcounts are not compared: a reader does
// not need them, and in a dirty image they are wrong.
//
// Errors are kIo. Thread-safe: a function of its arguments.
#ifndef SNAPSYNC_COMMON_QCOW2_METADATA_CHECK_H_
#define SNAPSYNC_COMMON_QCOW2_METADATA_CHECK_H_

#include <functional>

#include "absl/status/status.h"
#include "common/qcow2/header.h"
#include "common/qcow2/host_file.h"
#include "common/qcow2/table_reader.h"

namespace snapsync::qcow2 {

// `data_file` is null where the data are in the image itself. `at_work` is
// called again and again, so that somebody who waits sees it live.
absl::Status CheckMetadata(const Header& header, const HostFile& file,
                           const HostFile* data_file, TableReader& tables,
                           const std::function<void()>& at_work);

}  // namespace snapsync::qcow2

#endif  // SNAPSYNC_COMMON_QCOW2_METADATA_CHECK_H_
