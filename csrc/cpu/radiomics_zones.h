// Connected zones of equal level (8 neighbours), labelled row by row.
#pragma once

#include <algorithm>
#include <vector>

#include "../radiomics.h"

namespace medtrust {

class ZoneLabels {
 public:
  // Level 0, outside, makes zones too; they are left out at the end.
  explicit ZoneLabels(int64_t width)
      : stride_(width + 2), zones_(size_t(4 * width + 64)), parents_(zones_.size()), labels_(size_t(2 * stride_)),
        codes_(size_t(width)) {
    for (int code = 0; code < 16; ++code)
      for (int odd = 0; odd < 2; ++odd) {
        const int64_t up = odd ? -stride_ : stride_;  // the two rows of labels take turns
        const int64_t west_side = code & kWest ? -1 : code & kNorthWest ? up - 1 : 0;
        const int64_t north_side = code & kNorth ? up : code & kNorthEast ? up + 1 : 0;
        from_[odd][code] = north_side != 0 ? north_side : west_side;
        // Neighbours that touch each other have met already, so one of them stands for the rest; only the north-east
        // and the west side may meet here for the first time.
        meets_[odd][code] = !(code & kNorth) && (code & kNorthEast) ? west_side : 0;
      }
  }

  void start() {
    next_ = 1;
    zones_[0] = {0, 0};
    parents_[0] = 0;
    std::fill(labels_.begin(), labels_.end(), 0);
  }

  void add_row(const RadiomicsKernels& run, const LevelRows& rows, int64_t y) {
    run.joins(rows, codes_.data());
    if (next_ + rows.width >= int64_t(zones_.size())) {  // each pixel may start a zone
      zones_.resize(2 * zones_.size());
      parents_.resize(zones_.size());
    }
    const int64_t *from = from_[y % 2], *meets = meets_[y % 2];
    int32_t* label = labels_.data() + (y % 2) * stride_ + 1;
    Zone* zones = zones_.data();
    int32_t* parents = parents_.data();
    int32_t next = next_;
    for (int64_t x = 0; x < rows.width; ++x) {
      const uint8_t code = codes_[size_t(x)];
      // A new zone is prepared whether needed or not, and the label comes by an address: noise cannot be predicted.
      zones[next] = {0, rows.here[x]};
      parents[next] = next;
      label[x] = next;
      const int32_t mine = label[x + from[code]];
      label[x] = mine;
      ++zones[mine].size;
      next += code == 0;
      if (meets[code] != 0 && label[x + meets[code]] != mine) unite(mine, label[x + meets[code]]);
    }
    next_ = next;
  }

  // The zones, in an order that follows from the image alone.
  int64_t finish(Zone** zones) {
    int64_t count = 0;
    for (int32_t l = 1; l < next_; ++l) {  // a parent comes before its children, so it already points to its root
      const int32_t root = parents_[size_t(parents_[size_t(l)])];
      parents_[size_t(l)] = root;
      if (root != l) zones_[size_t(root)].size += zones_[size_t(l)].size;
    }
    for (int32_t l = 1; l < next_; ++l)
      if (parents_[size_t(l)] == l && zones_[size_t(l)].level != 0) zones_[size_t(count++)] = zones_[size_t(l)];
    *zones = zones_.data();
    return count;
  }

 private:
  int32_t root(int32_t l) {
    while (parents_[size_t(l)] != l) {
      parents_[size_t(l)] = parents_[size_t(parents_[size_t(l)])];
      l = parents_[size_t(l)];
    }
    return l;
  }

  void unite(int32_t a, int32_t b) {
    a = root(a), b = root(b);
    if (a < b)
      parents_[size_t(b)] = a;
    else
      parents_[size_t(a)] = b;
  }

  const int64_t stride_;
  int64_t from_[2][16], meets_[2][16];  // by row and sum of Join: steps to the label to take, and to one that it meets
  std::vector<Zone> zones_;
  std::vector<int32_t> parents_, labels_;  // labels: this row and the one above, between two of outside
  std::vector<uint8_t> codes_;
  int32_t next_ = 1;
};

}  // namespace medtrust
