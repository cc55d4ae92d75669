// Packing, the number of digits, and the order of the sums.
#include "../mmd.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "../isa.h"
#include "../pages.h"

namespace medtrust {
namespace {

constexpr int64_t kChunk = 2048;        // rows packed at a time
constexpr int64_t kTurn = 3 * kPair;    // rows of a thread's turn: with d = 2048 and 5 digits half a second cache
constexpr int64_t kLeast = 4, kMost = 6;  // digits; 6 still fit the 52 bits of a double's fraction

const MmdKernels& kernels() {
#ifdef MEDTRUST_X86
  switch (isa()) {
    case Isa::avx512: return avx512::mmd_kernels;
    case Isa::avx2: return avx2::mmd_kernels;
    default: break;
  }
#endif
  return scalar::mmd_kernels;
}

int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

// A power of two above a row's largest magnitude, far enough for its top digit to fit.
int exponent_above(double largest) {
  int e = 0;
  return std::frexp(largest, &e) > 0.99 ? e + 1 : e;
}

struct Plan {
  const MmdKernels& run;
  const MatrixKernels* unit;  // null: products in double
  const double* centre;
  Discrepancy kind;
  double scale;
  int64_t width, digits;
  int threads;

  int64_t steps() const { return blocks_of(width, kTileBytes); }
};

// Rows of a chunk as one side of the products.
struct Side {
  std::unique_ptr<int8_t[]> digits;
  std::unique_ptr<double[]> values;
  std::vector<double> weights, squares;
  int64_t count = 0;
};

int64_t bytes_of(const Rows& rows) { return rows.width * (rows.is_double ? 8 : 4); }

// Products in double: blocks of kPair rows, those of the left side in groups of kLeft whose values alternate, those of
// the right side all alternating.
void pack_values(const Plan& plan, const Rows& rows, int64_t first, bool right, Side& side) {
  const int64_t width = plan.width, group = right ? kPair : kLeft, blocks = blocks_of(side.count, kPair);
  const int64_t stride = width + kTile;  // rows whose widths are powers of two would share one set of the cache
  side.values.reset(new double[size_t(blocks * kPair * width)]);  // written in full below, zeros included
  wish_large_pages(side.values.get(), blocks * kPair * width * 8);
  const char* const data = static_cast<const char*>(rows.data) + first * bytes_of(rows);
#pragma omp parallel num_threads(plan.threads) if (plan.threads > 1)
  {
    std::vector<double> centred(size_t(kPair * stride), 0.0);
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      for (int64_t r = 0; r < kPair; ++r) {
        const int64_t i = block * kPair + r;
        double largest = 0;
        if (i < side.count)
          plan.run.centre(data + i * bytes_of(rows), width, rows.is_double, plan.centre, &centred[size_t(r * stride)],
                          &largest, &side.squares[size_t(i)]);
        else
          std::fill_n(&centred[size_t(r * stride)], width, 0.0);
      }
      double* const to = side.values.get() + block * kPair * width;
      for (int64_t from = 0; from < width; from += kTile)  // so few columns at a time that reads and writes stay near
        for (int64_t r = 0; r < kPair; ++r)
          for (int64_t k = from; k < std::min(from + kTile, width); ++k)
            to[(r / group * width + k) * group + r % group] = centred[size_t(r * stride + k)];
    }
  }
}

// Products of digits: tiles as matrix.h has them.
void pack_digits(const Plan& plan, const Rows& rows, int64_t first, bool right, Side& side) {
  const int64_t wide = plan.steps() * kTileBytes, width = plan.width;
  const int64_t tiles = blocks_of(side.count, kPair) * (kPair / kTile);
  side.digits.reset(new int8_t[size_t(tiles * kTile * wide * plan.digits)]);  // written in full below, zeros included
  wish_large_pages(side.digits.get(), tiles * kTile * wide * plan.digits);
  const char* const data = static_cast<const char*>(rows.data) + first * bytes_of(rows);
#pragma omp parallel num_threads(plan.threads) if (plan.threads > 1)
  {
    std::vector<double> centred(size_t(width), 0.0);
    std::vector<int8_t> row(size_t(wide * plan.digits), 0);
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < tiles; ++tile)
      for (int64_t r = 0; r < kTile; ++r) {
        const int64_t i = tile * kTile + r;
        double largest = 0;
        if (i < side.count)
          plan.run.centre(data + i * bytes_of(rows), width, rows.is_double, plan.centre, centred.data(), &largest,
                          &side.squares[size_t(i)]);
        else
          std::fill(centred.begin(), centred.end(), 0.0);
        const int e = exponent_above(largest);
        // The first digit counts 2^(e - 7); a block's products count the top digits' in units of 1.
        side.weights[size_t(i)] = std::ldexp(1.0, e - 7);
        plan.run.digits(centred.data(), width, std::ldexp(1.0, int(8 * plan.digits) - 1 - e), plan.digits, wide,
                        row.data());
        int8_t* const to = side.digits.get() + tile * plan.digits * kTile * wide;
        for (int64_t s = 0; s < plan.digits * plan.steps(); ++s) {
          const int8_t* const from = row.data() + s * kTileBytes;
          int8_t* const at = to + s * kTile * kTileBytes;
          if (right) {
            for (int64_t g = 0; g < kTile; ++g)
              std::memcpy(at + g * kTileBytes + 4 * r, from + 4 * g, 4);
          } else {
            std::copy(from, from + kTileBytes, at + r * kTileBytes);
          }
        }
      }
  }
}

Side pack(const Plan& plan, const Rows& rows, int64_t first, bool right) {
  Side side;
  side.count = std::min(kChunk, rows.count - first);
  const size_t padded = size_t(blocks_of(side.count, kPair) * kPair);
  side.weights.assign(padded, 1.0);
  side.squares.assign(padded, 0.0);
  plan.unit != nullptr ? pack_digits(plan, rows, first, right, side) : pack_values(plan, rows, first, right, side);
  return side;
}

double gauss_sum(const MmdBlock& block, double scale) {
  double total = 0;
  for (int64_t r = 0; r < block.rows; ++r)
    for (int64_t c = 0; c < block.cols; ++c) {
      if (block.diagonal && c == r) continue;
      const double dot = block.dots[r * kPair + c] * block.row_weights[r] * block.col_weights[c];
      const double square = block.row_squares[r] + block.col_squares[c] - 2 * dot;
      total += std::exp(-scale * (square > 0 ? square : 0));
    }
  return total;
}

// Sum over the pairs of two chunks; with `same` only once for each unordered pair of blocks, which counts twice.
double chunk_sum(const Plan& plan, const Side& left, const Side& right, bool same) {
  const int64_t rows = blocks_of(left.count, kPair), cols = blocks_of(right.count, kPair);
  const int64_t strip = plan.unit != nullptr ? kPair * plan.steps() * kTileBytes * plan.digits : kPair * plan.width;
  std::vector<double> sums(size_t(rows), 0.0);
#pragma omp parallel num_threads(plan.threads) if (plan.threads > 1)
  {
    if (plan.unit != nullptr) plan.unit->begin();
    alignas(64) double dots[kPair * kPair];
#pragma omp for schedule(dynamic, 1)
    for (int64_t turn = 0; turn < blocks_of(rows, kTurn / kPair); ++turn) {
      const int64_t from = turn * (kTurn / kPair), to = std::min(from + kTurn / kPair, rows);
      for (int64_t col = same ? from : 0; col < cols; ++col)
        for (int64_t row = from; row < (same ? std::min(to, col + 1) : to); ++row) {
          if (plan.unit != nullptr) {
            plan.unit->digits(left.digits.get() + row * strip, right.digits.get() + col * strip, plan.steps(),
                              plan.digits, dots);
          } else {
            plan.run.products(left.values.get() + row * strip, right.values.get() + col * strip, plan.width, dots);
          }
          const MmdBlock block{dots,
                               &left.weights[size_t(row * kPair)],
                               &right.weights[size_t(col * kPair)],
                               &left.squares[size_t(row * kPair)],
                               &right.squares[size_t(col * kPair)],
                               std::min(kPair, left.count - row * kPair),
                               std::min(kPair, right.count - col * kPair),
                               same && row == col};
          const double sum = plan.kind == Discrepancy::poly3 ? plan.run.poly3(block, plan.scale)
                                                             : gauss_sum(block, plan.scale);
          sums[size_t(row)] += same && row != col ? 2 * sum : sum;
        }
    }
    if (plan.unit != nullptr) plan.unit->end();
  }
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

// The sums over three pairs of sets. A chunk packed for the right side serves until another one is wanted.
void all_sums(const Plan& plan, const Rows& real, const Rows& fake, double* sums) {
  Side right;
  const Rows* packed = nullptr;
  int64_t packed_first = 0;
  const auto add = [&](const Side& left, const Rows& rows, int64_t first, double times, bool same, double& sum) {
    if (packed != &rows || packed_first != first) {
      right = Side();  // its memory, before more is taken
      right = pack(plan, rows, first, true);
      packed = &rows;
      packed_first = first;
    }
    sum += times * chunk_sum(plan, left, right, same);
  };
  std::fill(sums, sums + 3, 0.0);
  for (int64_t i = 0; i < real.count; i += kChunk) {
    const Side left = pack(plan, real, i, false);
    for (int64_t j = i; j < real.count; j += kChunk) add(left, real, j, i == j ? 1 : 2, i == j, sums[0]);
    for (int64_t j = 0; j < fake.count; j += kChunk) add(left, fake, j, 1, false, sums[2]);
  }
  for (int64_t i = 0; i < fake.count; i += kChunk) {
    const Side left = pack(plan, fake, i, false);
    for (int64_t j = i; j < fake.count; j += kChunk) add(left, fake, j, i == j ? 1 : 2, i == j, sums[1]);
  }
}

// The least number of digits that keeps the kernel's error below kPrecision; 0 where none does.
int64_t digits_needed(const Plan& plan, const Rows& real, const Rows& fake) {
  double spread = 0, most = 0;  // largest ratio of the power of two above a row's values to their root mean square
  bool possible = true;
  for (const Rows* rows : {&real, &fake}) {
#pragma omp parallel num_threads(plan.threads) if (plan.threads > 1)
    {
      std::vector<double> centred(size_t(plan.width), 0.0);
      double my_spread = 0, my_most = 0;
      bool my_possible = true;
#pragma omp for schedule(static)
      for (int64_t i = 0; i < rows->count; ++i) {
        double largest = 0, square = 0;
        plan.run.centre(static_cast<const char*>(rows->data) + i * bytes_of(*rows), plan.width, rows->is_double,
                        plan.centre, centred.data(), &largest, &square);
        if (largest == 0) continue;
        my_possible = my_possible && largest > 0x1p-400 && largest < 0x1p+400;
        my_spread = std::max(my_spread, std::ldexp(1.0, exponent_above(largest)) * std::sqrt(plan.width / square));
        my_most = std::max(my_most, square);
      }
#pragma omp critical
      {
        spread = std::max(spread, my_spread);
        most = std::max(most, my_most);
        possible = possible && my_possible;
      }
    }
  }
  // d(b^3) = 3 b^2 db against b^3, b >= |x||y| / d in size; d exp(-s D) <= s dD with D off by twice the product.
  const double slope = plan.kind == Discrepancy::poly3 ? 3 : 2 * plan.scale * most;
  for (int64_t n = kLeast; possible && n <= kMost; ++n) {
    const double least = std::ldexp(1.0, int(-8 * n));
    const double lost_products = double(n - 1) * spread * spread * least * 1.01, lost_rest = 2.01 * spread * least;
    if (slope * (lost_products + lost_rest) < kPrecision) return n;
  }
  return 0;
}

}  // namespace

void mmd_sums(const Rows& real, const Rows& fake, const double* centre, Discrepancy kind, double scale, double* sums,
              int threads) {
  Plan plan{kernels(), matrix_kernels(), centre, kind, scale, real.width, 0, threads};
  if (plan.unit != nullptr) plan.digits = plan.unit->digits != nullptr ? digits_needed(plan, real, fake) : 0;
  if (plan.digits == 0) plan.unit = nullptr;
  all_sums(plan, real, fake, sums);
}

}  // namespace medtrust
