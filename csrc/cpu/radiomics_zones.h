// Connected zones of equal level (8 neighbours), labelled row by row.
#pragma once

#include <vector>

#include "../radiomics.h"

namespace medtrust {

class ZoneLabels {
 public:
  // At most one new label per pixel. Level 0, outside, makes zones too; they are left out at the end.
  ZoneLabels(int64_t height, int64_t width)
      : stride_(width + 2),
        zones_(size_t(height * width + 2)),
        parents_(size_t(height * width + 2)),
        labels_(size_t((height + 1) * stride_), 0),
        codes_(size_t(width)) {
    for (int code = 0; code < 16; ++code) {
      const int64_t west_side = code & kWest ? -1 : code & kNorthWest ? -1 - stride_ : 0;
      const int64_t north_side = code & kNorth ? -stride_ : code & kNorthEast ? 1 - stride_ : 0;
      from_[code] = north_side != 0 ? north_side : west_side;
      // Neighbours that touch each other have met already, so one of them stands for the rest; only the north-east and
      // the west side may meet here for the first time.
      meets_[code] = !(code & kNorth) && (code & kNorthEast) ? west_side : 0;
    }
  }

  void start() {
    next_ = 1;
    zones_[0] = {0, 0};
    parents_[0] = 0;
  }

  void add_row(const RadiomicsKernels& run, const LevelRows& rows, int64_t y) {
    run.joins(rows, codes_.data());
    int32_t* label = labels_.data() + (y + 1) * stride_ + 1;
    Zone* zones = zones_.data();
    int32_t* parents = parents_.data();
    int32_t next = next_;
    for (int64_t x = 0; x < rows.width; ++x) {
      const uint8_t code = codes_[size_t(x)];
      // A new zone is prepared whether needed or not, and the label comes by an address: noise cannot be predicted.
      zones[next] = {0, rows.here[x]};
      parents[next] = next;
      label[x] = next;
      const int32_t mine = label[x + from_[code]];
      label[x] = mine;
      ++zones[mine].size;
      next += mine == next;
      if (meets_[code] != 0 && label[x + meets_[code]] != mine) unite(mine, label[x + meets_[code]]);
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
  int64_t from_[16], meets_[16];  // by the sum of Join: steps to the label to take, and to one that it meets, or 0
  std::vector<Zone> zones_;
  std::vector<int32_t> parents_, labels_;  // labels with a border of 0 above, left and right
  std::vector<uint8_t> codes_;
  int32_t next_ = 1;
};

}  // namespace medtrust
