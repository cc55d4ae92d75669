// Connected zones of equal level (8 neighbours), labelled row by row.
#pragma once

#include <vector>

#include "../radiomics.h"

namespace medtrust {

class ZoneLabels {
 public:
  // At most one new label per pixel; label 0 is everything outside.
  ZoneLabels(int64_t height, int64_t width)
      : zones_(size_t(height * width + 2)),
        parents_(size_t(height * width + 2)),
        above_(size_t(width + 2)),
        here_(size_t(width + 2)) {}

  void start() {
    next_ = 1;
    zones_[0] = {0, 0};
    parents_[0] = 0;
    here_.assign(here_.size(), 0);
    above_.assign(above_.size(), 0);
  }

  void add_row(const LevelRows& rows) {
    const uint16_t *above = rows.above, *here = rows.here;
    const int32_t* up = above_.data() + 1;
    int32_t* label = here_.data() + 1;
    for (int64_t x = 0; x < rows.width; ++x) {
      const uint16_t centre = here[x];
      const bool outside = centre == 0, n = above[x] == centre, ne = above[x + 1] == centre, w = here[x - 1] == centre,
                 nw = above[x - 1] == centre;
      const int32_t west = label[x - 1], north_west = up[x - 1], north = up[x], north_east = up[x + 1];
      // Neighbours that touch each other have met already, so one of them stands for the rest; only the north-east
      // and the west side may meet here for the first time. Selects instead of branches: noise cannot be predicted.
      zones_[size_t(next_)] = {0, centre};
      parents_[size_t(next_)] = next_;
      int32_t mine = choose(nw, north_west, next_);
      mine = choose(w, west, mine);
      mine = choose(ne, north_east, mine);
      mine = choose(n, north, mine);
      mine = choose(outside, 0, mine);
      next_ += mine == next_;
      ++zones_[size_t(mine)].size;
      label[x] = mine;
      if (!n & ne & (w | nw) & !outside) unite(mine, w ? west : north_west);
    }
    above_.swap(here_);
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
      if (parents_[size_t(l)] == l) zones_[size_t(count++)] = zones_[size_t(l)];
    *zones = zones_.data();
    return count;
  }

 private:
  static int32_t choose(bool wanted, int32_t yes, int32_t no) {
    const int32_t mask = -int32_t(wanted);
    return (yes & mask) | (no & ~mask);
  }

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

  std::vector<Zone> zones_;
  std::vector<int32_t> parents_, above_, here_;
  int32_t next_ = 1;
};

}  // namespace medtrust
