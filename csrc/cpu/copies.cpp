// Shifts, tiles and threads around the row kernels. Each pair's result depends on that pair alone.
#include "../copies.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../isa.h"

namespace medtrust {
namespace {

const CopyKernels& kernels() {
#ifdef MEDTRUST_X86
  switch (isa()) {
    case Isa::avx512: return avx512::copy_kernels;
    case Isa::avx2: return avx2::copy_kernels;
    default: break;
  }
#endif
  return scalar::copy_kernels;
}

// One image about its mean, and sums of its values and squares over any rectangle of all channels.
struct Centred {
  std::vector<double> values, sums, squares;
  int64_t width = 0;

  void fill(const ImagePairs& pairs, const void* images, int64_t image) {
    const int64_t plane = pairs.height * pairs.width, size = pairs.channels * plane;
    values.resize(size_t(size));
    for (int64_t i = 0; i < size; ++i)
      values[size_t(i)] = pairs.is_double ? static_cast<const double*>(images)[image * size + i]
                                          : double(static_cast<const float*>(images)[image * size + i]);
    double mean = 0;
    for (double value : values) mean += value / double(size);
    for (double& value : values) value -= mean;
    width = pairs.width + 1;
    sums.assign(size_t((pairs.height + 1) * width), 0.0);
    squares.assign(sums.size(), 0.0);
    for (int64_t r = 0; r < pairs.height; ++r) {
      double sum = 0, square = 0;
      for (int64_t c = 0; c < pairs.width; ++c) {
        for (int64_t k = 0; k < pairs.channels; ++k) {
          const double value = values[size_t(k * plane + r * pairs.width + c)];
          sum += value;
          square += value * value;
        }
        const size_t at = size_t((r + 1) * width + c + 1);
        sums[at] = sums[at - size_t(width)] + sum;
        squares[at] = squares[at - size_t(width)] + square;
      }
    }
  }

  double over(const std::vector<double>& table, int64_t top, int64_t left, int64_t rows, int64_t cols) const {
    const auto at = [&](int64_t r, int64_t c) { return table[size_t(r * width + c)]; };
    return at(top + rows, left + cols) - at(top, left + cols) - at(top + rows, left) + at(top, left);
  }

  // Variation about the mean of a rectangle of n values, 0 where it is flat.
  double variation(int64_t top, int64_t left, int64_t rows, int64_t cols, double n) const {
    const double sum = over(sums, top, left, rows, cols);
    const double rest = over(squares, top, left, rows, cols) - sum * sum / n;
    return rest > kFlat * squares.back() ? rest : 0;
  }
};

}  // namespace

void max_ncc(const ImagePairs& pairs, int64_t radius, double* largest, int threads) {
  const CopyKernels& run = kernels();
  const int64_t height = pairs.height, width = pairs.width, plane = height * width;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    Centred x, y;
#pragma omp for schedule(dynamic, 1)
    for (int64_t image = 0; image < pairs.count; ++image) {
      x.fill(pairs, pairs.x, image);
      y.fill(pairs, pairs.y, image);
      double best = -1;
      for (int64_t down = -radius; down <= radius; ++down)
        for (int64_t right = -radius; right <= radius; ++right) {
          const int64_t rows = height - std::abs(down), cols = width - std::abs(right);
          const int64_t top = std::max<int64_t>(down, 0), left = std::max<int64_t>(right, 0);
          const int64_t other_top = top - down, other_left = left - right;
          const double n = double(pairs.channels * rows * cols);
          const double of_x = x.variation(top, left, rows, cols, n);
          const double of_y = y.variation(other_top, other_left, rows, cols, n);
          double correlation = 0;
          if (of_x > 0 && of_y > 0) {
            double shared = 0;
            for (int64_t k = 0; k < pairs.channels; ++k)
              for (int64_t r = 0; r < rows; ++r)
                shared += run.dot(x.values.data() + k * plane + (top + r) * width + left,
                                  y.values.data() + k * plane + (other_top + r) * width + other_left, cols);
            shared -= x.over(x.sums, top, left, rows, cols) * y.over(y.sums, other_top, other_left, rows, cols) / n;
            correlation = shared / std::sqrt(of_x * of_y);
          }
          best = std::max(best, correlation);
        }
      largest[image] = std::min(best, 1.0);
    }
  }
}

void tile_l2(const ImagePairs& pairs, int64_t tile, double* farthest, int threads) {
  const CopyKernels& run = kernels();
  const int64_t height = pairs.height, width = pairs.width, across = (width + tile - 1) / tile;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<double> sums(size_t(across), 0.0);
#pragma omp for schedule(static)
    for (int64_t image = 0; image < pairs.count; ++image) {
      double most = 0;
      for (int64_t top = 0; top < height; top += tile) {
        std::fill(sums.begin(), sums.end(), 0.0);
        for (int64_t k = 0; k < pairs.channels; ++k)
          for (int64_t r = top; r < std::min(top + tile, height); ++r)
            for (int64_t t = 0; t < across; ++t)
              sums[size_t(t)] += run.squares(pairs.x, pairs.y,
                                             ((image * pairs.channels + k) * height + r) * width + t * tile,
                                             std::min(tile, width - t * tile), pairs.is_double);
        for (double sum : sums) most = std::max(most, sum);
      }
      farthest[image] = std::sqrt(most);
    }
  }
}

}  // namespace medtrust
