// SPDX-License-Identifier: Apache-2.0
#include "common/qcow2/host_space.h"

#include "gtest/gtest.h"

namespace snapsync::qcow2 {
namespace {

ClusterSet Free() {
  ClusterSet free;
  free.Add(3, 2);
  free.Add(8, 1);
  return free;
}

TEST(HostSpace, GivesOutTheLowestFreeThenTheEnd) {
  HostSpace space(Free(), 10);
  EXPECT_EQ(space.Allocate(), 3U);
  EXPECT_EQ(space.Allocate(2), 10U);
  EXPECT_EQ(space.Allocate(), 4U);
  EXPECT_EQ(space.Allocate(), 8U);
  EXPECT_EQ(space.Allocate(), 12U);
  EXPECT_EQ(space.end(), 13U);
}

TEST(HostSpace, WhatTheCommittedImageUsesIsNeverReleased) {
  HostSpace space(Free(), 10);
  space.Release(2);
  space.Release(9);
  EXPECT_TRUE(space.TakeReleased().empty());
  EXPECT_FALSE(space.IsOurs(2));
  EXPECT_TRUE(space.IsOurs(8));
  EXPECT_TRUE(space.IsOurs(10));
}

TEST(HostSpace, WhatIsReleasedIsGivenOutOnlyWhenItMayBeReused) {
  HostSpace space(Free(), 10);
  EXPECT_EQ(space.Allocate(), 3U);
  space.Release(3);
  EXPECT_EQ(space.Allocate(), 4U);
  EXPECT_EQ(space.Allocate(), 8U);
  EXPECT_EQ(space.Allocate(), 10U);
  space.Reuse(space.TakeReleased());
  EXPECT_EQ(space.Allocate(), 3U);
}

TEST(HostSpace, AfterAReplayAllIsFreeThatNobodyUses) {
  HostSpace space(Free(), 10);
  space.BeginReplay(20);
  // Nothing that a later record may name.
  EXPECT_EQ(space.Allocate(), 20U);
  EXPECT_EQ(space.Allocate(), 21U);
  space.Release(20);
  ClusterSet used;
  used.Add(4, 1);
  used.Add(11, 8);
  space.EndReplay(used);
  EXPECT_EQ(space.Allocate(), 3U);
  EXPECT_EQ(space.Allocate(), 8U);
  EXPECT_EQ(space.Allocate(), 10U);
  EXPECT_EQ(space.Allocate(), 19U);
  EXPECT_EQ(space.Allocate(), 20U);
  EXPECT_EQ(space.Allocate(), 22U);
}

}  // namespace
}  // namespace snapsync::qcow2
