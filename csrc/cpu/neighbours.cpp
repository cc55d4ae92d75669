// Heaps, certificates and threads around the row kernels. Each row's result depends on that row alone.
#include "../neighbours.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "../isa.h"

namespace medtrust {
namespace {

constexpr double kUnit = 1.0 / (1 << 24);
constexpr int64_t kBlock = 512;  // columns scanned against one threshold before the heap lowers it

const NeighbourKernels& kernels() {
#ifdef MEDTRUST_X86
  switch (isa()) {
    case Isa::avx512: return avx512::neighbour_kernels;
    case Isa::avx2: return avx2::neighbour_kernels;
    default: break;
  }
#endif
  return scalar::neighbour_kernels;
}

// Twice the largest error of a float32 dot product of d centred and rounded terms, without the factor |r|.
float slack_of(int64_t width, double row_square) {
  return float(2.0 * double(width + 16) * kUnit * std::sqrt(row_square) * (1 + 4 * kUnit));
}

// float32 columns of a tile. For bounds the squares are rounded down far enough to absorb the arithmetic that follows.
struct Columns {
  std::vector<float> squares, norms;

  Columns(const DotTile& tile, bool down) : squares(size_t(tile.cols)), norms(size_t(tile.cols)) {
    for (int64_t c = 0; c < tile.cols; ++c) {
      const double square = tile.col_squares[c];
      squares[size_t(c)] = float(down ? square * (1 - 16 * kUnit) - kUnderflow : square);
      norms[size_t(c)] = float(std::sqrt(tile.col_squares[c]) * (1 + 4 * kUnit));
    }
  }
};

const char* row_of(const Rows& rows, int64_t i) {
  return static_cast<const char*>(rows.data) + i * rows.width * (rows.is_double ? 8 : 4);
}

using Found = std::pair<double, int64_t>;  // squared distance, index: ordered by both

// The k smallest of what was added.
class Nearest {
 public:
  explicit Nearest(int64_t k) : k_(k) { heap_.reserve(size_t(k)); }

  // Squared distance of the k-th, +infinity until there are k.
  double worst() const { return int64_t(heap_.size()) < k_ ? kInfinity : heap_.front().first; }

  void add(const Found& one) {
    if (int64_t(heap_.size()) == k_) {
      if (!(one < heap_.front())) return;
      std::pop_heap(heap_.begin(), heap_.end());
      heap_.pop_back();
    }
    heap_.push_back(one);
    std::push_heap(heap_.begin(), heap_.end());
  }

  // In order, padded with (+infinity, -1).
  void write(double* squared, int64_t* nearest) {
    std::sort_heap(heap_.begin(), heap_.end());
    for (int64_t i = 0; i < k_; ++i) {
      const bool there = i < int64_t(heap_.size());
      squared[i] = there ? heap_[size_t(i)].first : kInfinity;
      nearest[i] = there ? heap_[size_t(i)].second : -1;
    }
  }

 private:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
  int64_t k_;
  std::vector<Found> heap_;
};

}  // namespace

void neighbours_prepare(const Rows& rows, const double* centre, double scale, float* rounded, double* squares,
                        int threads) {
  const NeighbourKernels& run = kernels();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < rows.count; ++i)
    squares[i] = run.prepare(row_of(rows, i), rows.width, rows.is_double, centre, scale, rounded + i * rows.width);
}

void neighbours_scan(const DotTile& tile, const int64_t* query_groups, const int64_t* reference_groups, int64_t keep,
                     float* bounds, int64_t* indices, int threads) {
  const NeighbourKernels& run = kernels();
  const Columns columns(tile, true);
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<float> found(size_t(kBlock), 0.0f);
    std::vector<int32_t> hits(size_t(kBlock), 0);
    std::vector<std::pair<float, int64_t>> heap(static_cast<size_t>(keep));
#pragma omp for schedule(static)
    for (int64_t r = 0; r < tile.rows; ++r) {
      const int64_t row = tile.first_row + r;
      // -2 q.r is rounded too: its share of the shrink is |q| |r|, far below the slack's (d + 16) |q| |r|.
      const float slack = slack_of(tile.width, tile.row_squares[r]);
      float* const my_bounds = bounds + row * keep;
      int64_t* const my_indices = indices + row * keep;
      for (int64_t i = 0; i < keep; ++i) heap[size_t(i)] = {my_bounds[i], my_indices[i]};
      bool changed = false;
      for (int64_t first = 0; first < tile.cols; first += kBlock) {
        const int64_t count = std::min(kBlock, tile.cols - first);
        const int64_t near = run.scan(tile.dots + r * tile.cols + first, columns.squares.data() + first,
                                      columns.norms.data() + first, slack, heap.front().first, count, found.data(),
                                      hits.data());
        for (int64_t h = 0; h < near; ++h) {
          const float bound = found[size_t(hits[size_t(h)])];
          const int64_t column = tile.first_col + first + hits[size_t(h)];
          if (!(bound < heap.front().first)) continue;
          if (query_groups != nullptr && query_groups[row] == reference_groups[column]) continue;
          std::pop_heap(heap.begin(), heap.end());
          heap.back() = {bound, column};
          std::push_heap(heap.begin(), heap.end());
          changed = true;
        }
      }
      if (!changed) continue;
      for (int64_t i = 0; i < keep; ++i) {
        my_bounds[i] = heap[size_t(i)].first;
        my_indices[i] = heap[size_t(i)].second;
      }
    }
  }
}

void neighbours_refine(const Rows& queries, const Rows& references, const double* query_squares,
                       double square_scale, int64_t keep, const float* bounds, const int64_t* indices,
                       const int32_t* filled, int64_t k, double* squared, int64_t* nearest, bool* certified,
                       int threads) {
  const NeighbourKernels& run = kernels();
#pragma omp parallel for schedule(dynamic, 16) num_threads(threads) if (threads > 1)
  for (int64_t r = 0; r < queries.count; ++r) {
    std::vector<std::pair<float, int64_t>> candidates;
    if (filled != nullptr && filled[r] < 0) {
      certified[r] = false;
      continue;
    }
    bool full = filled == nullptr;  // a list that never filled holds every admissible reference
    const int64_t listed = filled == nullptr ? keep : filled[r];
    for (int64_t i = 0; i < listed; ++i) {
      const int64_t index = indices[r * keep + i];
      full = full && index >= 0;
      if (index >= 0) candidates.emplace_back(bounds[r * keep + i], index);
    }
    std::sort(candidates.begin(), candidates.end());
    Nearest found(k);
    // In order of the bounds: once a bound lies beyond the k-th distance, so does every reference not yet looked at.
    bool proven = false;
    for (const auto& [bound, index] : candidates) {
      proven = query_squares[r] + double(bound) > found.worst() * square_scale;
      if (proven) break;
      found.add({run.squared_distance(row_of(queries, r), row_of(references, index), queries.width,
                                      queries.is_double),
                 index});
    }
    if (!proven && full) proven = query_squares[r] + double(candidates.back().first) > found.worst() * square_scale;
    certified[r] = proven || !full;
    found.write(squared + r * k, nearest + r * k);
  }
}

void neighbours_sweep(const Rows& queries, const Rows& references, const int64_t* chosen, int64_t count,
                      const int64_t* query_groups, const int64_t* reference_groups, int64_t k, double* squared,
                      int64_t* nearest, int threads) {
  const NeighbourKernels& run = kernels();
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = chosen[i];
    Nearest found(k);
    // k exact copies end the search: nothing can come before them in the order of (distance, index).
    for (int64_t j = 0; j < references.count && found.worst() > 0; ++j) {
      if (query_groups != nullptr && query_groups[row] == reference_groups[j]) continue;
      found.add({run.squared_distance(row_of(queries, row), row_of(references, j), queries.width, queries.is_double),
                 j});
    }
    found.write(squared + row * k, nearest + row * k);
  }
}

void neighbours_balls(const DotTile& tile, const Rows& queries, const Rows& references, const double* query_radii,
                      const double* reference_radii, double square_scale, bool inclusive, int64_t* in_balls,
                      uint8_t* recalled, uint8_t* covered, int threads) {
  const NeighbourKernels& run = kernels();
  const Columns columns(tile, false);
  std::vector<float> radii(size_t(tile.cols), 0.0f);
  for (int64_t c = 0; c < tile.cols; ++c) radii[size_t(c)] = float(reference_radii[tile.first_col + c] * square_scale);
  const auto inside = [inclusive](double square, double radius) {
    return inclusive ? square <= radius : square < radius;
  };
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<uint8_t> my_recalled(size_t(tile.cols), 0), my_covered(size_t(tile.cols), 0);
    std::vector<int32_t> undecided(size_t(tile.cols), 0);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < tile.rows; ++r) {
      const int64_t query = tile.first_row + r;
      const BallRow row{tile.dots + r * tile.cols,     columns.squares.data(),
                        columns.norms.data(),          radii.data(),
                        tile.cols,                     float(tile.row_squares[r]),
                        slack_of(tile.width, tile.row_squares[r]), float(query_radii[query] * square_scale)};
      int64_t open = 0;
      int64_t count = run.balls(row, my_recalled.data(), my_covered.data(), undecided.data(), &open);
      for (int64_t i = 0; i < open; ++i) {
        const int64_t c = undecided[size_t(i)], reference = tile.first_col + c;
        const bool same = tile.row_squares[r] == 0 && tile.col_squares[c] == 0;  // both lie on the centre
        const double square = same ? 0.0
                                   : run.squared_distance(row_of(queries, query), row_of(references, reference),
                                                          queries.width, queries.is_double);
        if (inside(square, query_radii[query])) my_recalled[size_t(c)] = 1;
        if (!inside(square, reference_radii[reference])) continue;
        my_covered[size_t(c)] = 1;
        ++count;
      }
      in_balls[query] += count;
    }
#pragma omp critical
    for (int64_t c = 0; c < tile.cols; ++c) {  // a union: the order of the threads does not matter
      recalled[tile.first_col + c] |= my_recalled[size_t(c)];
      covered[tile.first_col + c] |= my_covered[size_t(c)];
    }
  }
}

}  // namespace medtrust
