// Bounds of 32 x 32 blocks of products, 16 references at a time.
#include "../candidates.h"

#ifdef MEDTRUST_MATRIX
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // the compiler's own intrinsics start from undefined vectors
#endif
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace medtrust {
namespace {

constexpr double kUnit = 1.0 / (1 << 24);
constexpr int64_t kRowsAtOnce = 256;  // queries of a thread's turn: with d = 2048 their tiles fill half a second cache
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// 16 features, centred and scaled, as two vectors of double.
template <typename T>
void load16(const T* row, const double* centre, double scale, __mmask16 mask, __m512d gap[2]) {
  for (int h = 0; h < 2; ++h) {
    const __mmask8 part = __mmask8(mask >> (8 * h));
    __m512d x;
    if constexpr (sizeof(T) == 8) {
      x = _mm512_maskz_loadu_pd(part, row + 8 * h);
    } else {
      x = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(part, row + 8 * h));
    }
    gap[h] = _mm512_mul_pd(_mm512_set1_pd(scale), _mm512_sub_pd(x, _mm512_maskz_loadu_pd(part, centre + 8 * h)));
  }
}

// Rounds a row to bfloat16; returns |r|^2 and |r - r^|.
template <typename T>
void round_row(const T* row, const double* centre, double scale, int64_t width, uint16_t* rounded, double* square,
               double* gap) {
  __m512d squares = _mm512_setzero_pd(), losses = _mm512_setzero_pd();
  for (int64_t i = 0; i < width; i += 16) {
    const __mmask16 mask = width - i >= 16 ? __mmask16(0xffff) : __mmask16((1u << (width - i)) - 1);
    __m512d x[2];
    load16(row + i, centre + i, scale, mask, x);
    const __m512 both = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(x[0])), _mm512_cvtpd_ps(x[1]), 1);
    const __m512i bits = _mm512_castps_si512(both);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));  // to nearest, even
    const __m512i high = _mm512_srli_epi32(up, 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rounded + i), _mm512_cvtepi32_epi16(high));
    const __m512 back = _mm512_castsi512_ps(_mm512_slli_epi32(high, 16));
    const __m512d lost0 = _mm512_sub_pd(x[0], _mm512_cvtps_pd(_mm512_castps512_ps256(back)));
    const __m512d lost1 = _mm512_sub_pd(x[1], _mm512_cvtps_pd(_mm512_extractf32x8_ps(back, 1)));
    squares = _mm512_fmadd_pd(x[1], x[1], _mm512_fmadd_pd(x[0], x[0], squares));
    losses = _mm512_fmadd_pd(lost1, lost1, _mm512_fmadd_pd(lost0, lost0, losses));
  }
  *square = _mm512_reduce_add_pd(squares);
  *gap = std::sqrt(_mm512_reduce_add_pd(losses));
}

// What the bounds need of 32 references.
struct Columns {
  alignas(64) float squares[kPair], norms[kPair], gaps[kPair];

  // For bounds the squares are rounded down far enough to absorb the arithmetic that follows.
  Columns(const Packed& references, int64_t first, bool down) {
    for (int64_t c = 0; c < kPair; ++c) {
      const bool there = first + c < references.count;
      const double square = there ? references.squares[first + c] : 0;
      squares[c] = !there ? kInfinity : float(down ? square * (1 - 16 * kUnit) - kUnderflow : square);
      norms[c] = float(std::sqrt(square) * (1 + 4 * kUnit));
      gaps[c] = there ? float(references.gaps[first + c] * (1 + 4 * kUnit)) : 0.0f;
    }
  }
};

// Factors of |r| and |r - r^| in twice the error of a product; the 16 spare units take in the float arithmetic.
struct RowError {
  float of_norm, of_gap;

  RowError(const Packed& queries, int64_t row) {
    const double norm = std::sqrt(queries.squares[row]), gap = queries.gaps[row];
    of_norm = float(2 * (gap + 1.01 * double(queries.width + 16) * kUnit * norm) * (1 + 4 * kUnit));
    of_gap = float(2 * (norm + gap) * (1 + 4 * kUnit));
  }

  __m512 slack(const Columns& columns, int64_t c) const {
    return _mm512_fmadd_ps(_mm512_set1_ps(of_norm), _mm512_load_ps(columns.norms + c),
                           _mm512_mul_ps(_mm512_set1_ps(of_gap), _mm512_load_ps(columns.gaps + c)));
  }
};

// One query's list.
class List {
 public:
  List(const Candidates& all, int64_t row)
      : uppers_(all.uppers + row * all.capacity), bounds_(all.bounds + row * all.capacity),
        indices_(all.indices + row * all.capacity), worst_(all.worst + row), filled_(all.filled + row), k_(all.k),
        capacity_(all.capacity) {
    plan();
  }

  // Lower bounds from here on cannot be among the nearest.
  float limit() const { return *filled_ < 0 ? -kInfinity : std::nextafter(*worst_, kInfinity); }

  void add(float lower, float upper, int64_t index) {
    if (*filled_ < 0 || lower > *worst_) return;
    uppers_[*filled_] = upper;
    bounds_[*filled_] = lower;
    indices_[(*filled_)++] = index;
    if (*filled_ >= next_) thin();
  }

  // Lowers the k-th upper bound to what the list shows, and drops what that rules out.
  void thin() {
    if (*filled_ <= k_) return;
    ranked_.assign(uppers_, uppers_ + *filled_);
    std::nth_element(ranked_.begin(), ranked_.begin() + (k_ - 1), ranked_.end());
    *worst_ = std::min(*worst_, ranked_[size_t(k_ - 1)]);
    int32_t kept = 0;
    for (int32_t i = 0; i < *filled_; ++i)
      if (bounds_[i] <= *worst_) {
        uppers_[kept] = uppers_[i];
        bounds_[kept] = bounds_[i];
        indices_[kept++] = indices_[i];
      }
    *filled_ = kept > capacity_ * 7 / 8 ? -1 : kept;
    plan();
  }

 private:
  void plan() { next_ = std::min<int64_t>(capacity_, *filled_ + k_ + 8); }

  float* uppers_;
  float* bounds_;
  int64_t* indices_;
  float* worst_;
  int32_t* filled_;
  int64_t k_, capacity_, next_ = 0;
  std::vector<float> ranked_;
};

struct Groups {
  const int64_t* queries;
  const int64_t* references;  // from the first of the block on
};

void list_row(const float* dots, const Columns& columns, const RowError& error, int64_t row, int64_t column,
              int64_t first, const Groups& groups, List& list, float& limit) {
  for (int64_t c = 0; c < kPair; c += 16) {
    const __m512 squares = _mm512_load_ps(columns.squares + c), slack = error.slack(columns, c);
    const __m512 centre = _mm512_fnmadd_ps(_mm512_set1_ps(2.0f), _mm512_load_ps(dots + c), squares);
    const __m512 lower = _mm512_sub_ps(centre, slack);
    __mmask16 hits = _mm512_cmp_ps_mask(lower, _mm512_set1_ps(limit), _CMP_LT_OQ);
    if (hits == 0) continue;
    alignas(64) float lowers[16], slacks[16];
    _mm512_store_ps(lowers, lower);
    _mm512_store_ps(slacks, slack);
    for (; hits != 0; hits = __mmask16(hits & (hits - 1))) {
      const int l = __builtin_ctz(hits);
      const int64_t reference = column + c + l;
      if (groups.queries != nullptr && groups.queries[row] == groups.references[reference]) continue;
      const float spare = 64 * float(kUnit) * columns.squares[c + l] + 4 * kUnderflow;
      list.add(lowers[l], lowers[l] + 2.001f * slacks[l] + spare, first + reference);
    }
    limit = list.limit();
  }
}

int64_t blocks_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Products of a turn's queries with 32 references, [256, 32].
class Dots {
 public:
  float* data() { return values_; }

 private:
  alignas(64) float values_[kRowsAtOnce * kPair];
};

// A stretch of the references' features stays in the first cache while all queries of the turn pass by.
void products(const MatrixKernels& unit, const Packed& queries, const Packed& references, int64_t from, int64_t to,
              int64_t column, float* dots) {
  constexpr int64_t kStretch = 16, kTileElements = kTile * 32;
  const int64_t steps = bf16_steps(queries.width), strip = 2 * steps * kTileElements;
  const uint16_t* const right = references.tiles + column / kPair * strip;
  for (int64_t first = 0; first < steps; first += kStretch) {
    const int64_t count = std::min(kStretch, steps - first);
    for (int64_t top = from; top < to; top += kPair)
      unit.bf16(queries.tiles + top / kPair * strip + first * kTileElements, right + first * kTileElements, steps, count,
                first > 0, dots + (top - from) * kPair);
  }
}

}  // namespace

void candidates_pack(const Rows& rows, const double* centre, double scale, bool right, uint16_t* tiles, double* squares,
                     double* gaps, int threads) {
  const int64_t steps = bf16_steps(rows.width), wide = steps * 32;
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    std::vector<uint16_t> rounded(size_t(wide), 0);
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < blocks_of(rows.count, kPair) * 2; ++tile)
      for (int64_t r = 0; r < kTile; ++r) {
        const int64_t i = tile * kTile + r;
        if (i >= rows.count) {
          std::fill(rounded.begin(), rounded.end(), uint16_t(0));
        } else if (rows.is_double) {
          round_row(static_cast<const double*>(rows.data) + i * rows.width, centre, scale, rows.width, rounded.data(),
                    squares + i, gaps + i);
        } else {
          round_row(static_cast<const float*>(rows.data) + i * rows.width, centre, scale, rows.width, rounded.data(),
                    squares + i, gaps + i);
        }
        uint16_t* const to = tiles + tile * kTile * wide;
        for (int64_t s = 0; s < steps; ++s)
          if (right) {
            for (int64_t pair = 0; pair < 16; ++pair)
              std::memcpy(to + s * 512 + pair * 32 + 2 * r, rounded.data() + s * 32 + 2 * pair, 4);
          } else {
            std::memcpy(to + s * 512 + r * 32, rounded.data() + s * 32, kTileBytes);
          }
      }
  }
}

void candidates_search(const Packed& queries, const Packed& references, int64_t first, const int64_t* query_groups,
                       const int64_t* reference_groups, const Candidates& found, int threads) {
  const MatrixKernels& unit = *matrix_kernels();
  const Groups groups{query_groups, reference_groups == nullptr ? nullptr : reference_groups + first};
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    unit.begin();
    Dots dots;
#pragma omp for schedule(dynamic, 1)
    for (int64_t turn = 0; turn < blocks_of(queries.count, kRowsAtOnce); ++turn) {
      const int64_t from = turn * kRowsAtOnce, to = std::min(from + kRowsAtOnce, queries.count);
      std::vector<List> lists;
      std::vector<RowError> errors;
      std::vector<float> limits;
      lists.reserve(size_t(to - from));
      for (int64_t row = from; row < to; ++row) {
        lists.emplace_back(found, row);
        errors.emplace_back(queries, row);
        limits.push_back(lists.back().limit());
      }
      for (int64_t column = 0; column < references.count; column += kPair) {
        const Columns columns(references, column, true);
        products(unit, queries, references, from, to, column, dots.data());
        for (int64_t row = from; row < to; ++row) {
          const size_t at = size_t(row - from);
          list_row(dots.data() + at * kPair, columns, errors[at], row, column, first, groups, lists[at], limits[at]);
        }
      }
      for (List& list : lists) list.thin();
    }
    unit.end();
  }
}

void candidates_balls(const Packed& queries, const Packed& references, int64_t first, const Rows& query_rows,
                      const Rows& reference_rows, const double* query_radii, const double* reference_radii,
                      double square_scale, bool inclusive, int64_t* in_balls, uint8_t* recalled, uint8_t* covered,
                      bool* left, int threads) {
  const MatrixKernels& unit = *matrix_kernels();
  const auto squared_distance = avx512::neighbour_kernels.squared_distance;
  const int64_t width = query_rows.width;
  const int64_t bytes = width * (query_rows.is_double ? 8 : 4);
  const int64_t vectors = blocks_of(references.count, kPair) * 2;
  const char* const query_data = static_cast<const char*>(query_rows.data);
  const char* const reference_data = static_cast<const char*>(reference_rows.data) + first * bytes;
  const double* const radii_of = reference_radii + first;
  const auto inside = [inclusive](double square, double radius) {
    return inclusive ? square <= radius : square < radius;
  };
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    unit.begin();
    Dots dots;
    alignas(64) float radii[kPair];
    std::vector<__mmask16> my_recalled(size_t(vectors), 0), my_covered(size_t(vectors), 0);
#pragma omp for schedule(dynamic, 1)
    for (int64_t turn = 0; turn < blocks_of(queries.count, kRowsAtOnce); ++turn) {
      if (left[turn]) continue;
      const int64_t from = turn * kRowsAtOnce, to = std::min(from + kRowsAtOnce, queries.count);
      // Beyond one pair in 16, float32 bounds are cheaper than so many exact distances.
      int64_t budget = 1024 + (to - from) * references.count / 16;
      std::vector<RowError> errors;
      std::vector<int64_t> counts(size_t(to - from), 0);
      for (int64_t row = from; row < to; ++row) errors.emplace_back(queries, row);
      for (int64_t column = 0; column < references.count && budget >= 0; column += kPair) {
        const Columns columns(references, column, false);
        for (int64_t c = 0; c < kPair; ++c)
          radii[c] = column + c < references.count ? float(radii_of[column + c] * square_scale) : 0.0f;
        products(unit, queries, references, from, to, column, dots.data());
        for (int64_t row = from; row < to; ++row)
            for (int64_t c = 0; c < kPair; c += 16) {
              const int64_t at = (column + c) / 16;
              const int64_t rest = references.count - column - c;
              if (rest <= 0) break;
              const __mmask16 there = rest >= 16 ? __mmask16(0xffff) : __mmask16((1u << rest) - 1);
              const __m512 real = _mm512_load_ps(radii + c);
              const __m512 fake = _mm512_set1_ps(float(query_radii[row] * square_scale));
              const __m512 squares = _mm512_load_ps(columns.squares + c);
              const __m512 sum = _mm512_add_ps(_mm512_set1_ps(float(queries.squares[row])), squares);
              const __m512 dot = _mm512_load_ps(dots.data() + (row - from) * kPair + c);
              const __m512 distance = _mm512_fnmadd_ps(_mm512_set1_ps(2.0f), dot, sum);
              const __m512 rounding = _mm512_fmadd_ps(_mm512_set1_ps(16 * float(kUnit)), sum, _mm512_set1_ps(kUnderflow));
              const __m512 error = _mm512_add_ps(errors[size_t(row - from)].slack(columns, c), rounding);
              const __m512 unit4 = _mm512_set1_ps(4 * float(kUnit));
              const __m512 error_real = _mm512_fmadd_ps(unit4, real, error);
              const __m512 error_fake = _mm512_fmadd_ps(unit4, fake, error);
              const __m512 reach = _mm512_sub_ps(real, distance), other = _mm512_sub_ps(fake, distance);
              const __m512 zero = _mm512_setzero_ps();
              __mmask16 in_real = there & _mm512_cmp_ps_mask(reach, error_real, _CMP_GT_OQ);
              const __mmask16 out_real = _mm512_cmp_ps_mask(reach, _mm512_sub_ps(zero, error_real), _CMP_LT_OQ);
              __mmask16 in_fake = there & _mm512_cmp_ps_mask(other, error_fake, _CMP_GT_OQ);
              const __mmask16 out_fake = _mm512_cmp_ps_mask(other, _mm512_sub_ps(zero, error_fake), _CMP_LT_OQ);
              __mmask16 open = there & __mmask16(~((in_real | out_real) & (in_fake | out_fake)));
              budget -= __builtin_popcount(open);
              for (; open != 0; open = __mmask16(open & (open - 1))) {
                const int l = __builtin_ctz(open);
                const int64_t reference = column + c + l;
                const bool same = queries.squares[row] == 0 && references.squares[reference] == 0;  // on the centre
                const double square = same ? 0.0
                                           : squared_distance(query_data + row * bytes, reference_data + reference * bytes,
                                                              width, query_rows.is_double);
                const __mmask16 bit = __mmask16(1u << l);
                const bool holds = inside(square, radii_of[reference]), held = inside(square, query_radii[row]);
                in_real = holds ? __mmask16(in_real | bit) : __mmask16(in_real & ~bit);
                in_fake = held ? __mmask16(in_fake | bit) : __mmask16(in_fake & ~bit);
              }
              counts[size_t(row - from)] += __builtin_popcount(in_real);
              my_covered[size_t(at)] |= in_real;
              my_recalled[size_t(at)] |= in_fake;
            }
      }
      left[turn] = budget < 0;
      for (int64_t row = from; row < to; ++row) in_balls[row] += counts[size_t(row - from)];
    }
#pragma omp critical
    for (int64_t c = 0; c < references.count; ++c) {  // a union: the order of the threads does not matter
      recalled[first + c] |= uint8_t(my_recalled[size_t(c / 16)] >> (c % 16) & 1);
      covered[first + c] |= uint8_t(my_covered[size_t(c / 16)] >> (c % 16) & 1);
    }
    unit.end();
  }
}

}  // namespace medtrust
#endif
