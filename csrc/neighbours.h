// Exact nearest neighbours and ball membership from approximate dot products.
//
// A float32 GEMM gives dots ~ q.r of centred rows. With norms in float64, |q - r|^2 = |q|^2 + |r|^2 - 2 q.r is known
// within `slack * |r|` plus a few roundings, where slack = 2 (d + 16) 2^-24 |q| bounds the GEMM in any summation order.
// Whatever this interval cannot decide is computed again as sum (q - r)^2 in float64 from the original rows: the
// expanded form loses small distances, which is where copies live. The float32 rows are scaled by a power of two so that
// none of their values exceeds 1; squares and radii that meet dots are in these units, everything else is unscaled.
#pragma once

#include <cstdint>

namespace medtrust {

// Feature rows as the caller gave them, contiguous.
struct Rows {
  const void* data;  // [count, width]
  int64_t count, width;
  bool is_double;  // float64, else float32
};

// One tile of dot products between centred float32 rows.
struct DotTile {
  const float* dots;  // [rows, cols]
  int64_t rows, cols;
  int64_t first_row, first_col;  // where the tile lies among the queries and the references
  const double* row_squares;     // [rows] |q|^2, scaled
  const double* col_squares;     // [cols] |r|^2, scaled
  int64_t width;                 // d
};

constexpr float kUnderflow = 1e-30f;  // absolute part of an error: below it float32 products lose digits

// Rows ready for the GEMM: scale * (row - centre), computed in float64.
// inputs:  rows [n, d], centre [d]
// outputs: rounded [n, d] float32, squares [n] float64 of the values before rounding
void neighbours_prepare(const Rows& rows, const double* centre, double scale, float* rounded, double* squares,
                        int threads);

// Keeps, for each query, the `keep` references whose squared distance has the smallest lower bound.
// groups:  [rows of all queries], [count of all references], or both null; a pair of equal groups is excluded
// bounds:  [rows, keep] float32, lower bounds of |r|^2 - 2 q.r, a max-heap per row; start at +infinity
// indices: [rows, keep] int64, start at -1
void neighbours_scan(const DotTile& tile, const int64_t* query_groups, const int64_t* reference_groups, int64_t keep,
                     float* bounds, int64_t* indices, int threads);

// Exact distances to the candidates, the k smallest of them in order of (distance, index), and whether the bounds prove
// that no other reference can be nearer. query_squares [n] are scaled, square_scale is the factor of squares.
// filled: [n] candidates of each row, which then hold every reference that can be near, or -1 where no list was kept;
// or null, where the lists end at index -1 and a full one proves nothing by itself
// outputs: squared [n, k] float64 (+infinity where there is no k-th reference), nearest [n, k] int64 (-1), certified [n]
void neighbours_refine(const Rows& queries, const Rows& references, const double* query_squares,
                       double square_scale, int64_t keep, const float* bounds, const int64_t* indices,
                       const int32_t* filled, int64_t k, double* squared, int64_t* nearest, bool* certified,
                       int threads);

// The same result for chosen queries, from all references in float64.
void neighbours_sweep(const Rows& queries, const Rows& references, const int64_t* chosen, int64_t count,
                      const int64_t* query_groups, const int64_t* reference_groups, int64_t k, double* squared,
                      int64_t* nearest, int threads);

// Which rows of a tile lie in whose ball. Queries are the generated rows, references the real ones.
// query_radii, reference_radii: squared, of all rows, float64; a point is inside at < radius, or at <= with `inclusive`
// in_balls [queries] int64: adds the number of real balls around each generated row
// recalled, covered [references] uint8: set where the real row lies in a generated ball, where its own ball holds one
void neighbours_balls(const DotTile& tile, const Rows& queries, const Rows& references, const double* query_radii,
                      const double* reference_radii, double square_scale, bool inclusive, int64_t* in_balls,
                      uint8_t* recalled, uint8_t* covered, int threads);

// What is compiled once per instruction set.
struct BallRow {
  const float* dots;           // [cols]
  const float* col_squares;    // [cols]
  const float* col_norms;      // [cols]
  const float* col_radii;      // [cols] squared radius of each real ball
  int64_t cols;
  float row_square, slack, row_radius;
};

struct NeighbourKernels {
  double (*prepare)(const void* row, int64_t width, bool is_double, const double* centre, double scale, float* rounded);
  double (*squared_distance)(const void* x, const void* y, int64_t width, bool is_double);
  // Columns whose bound is below the threshold, in order; returns how many. bounds, hits: [cols]
  int64_t (*scan)(const float* dots, const float* col_squares, const float* col_norms, float slack, float threshold,
                  int64_t cols, float* bounds, int32_t* hits);
  // Sets recalled and covered where decided, lists undecided columns; returns how many real balls surely hold the row.
  int64_t (*balls)(const BallRow& row, uint8_t* recalled, uint8_t* covered, int32_t* undecided, int64_t* undecided_count);
};

namespace scalar {
extern const NeighbourKernels neighbour_kernels;
}
namespace avx2 {
extern const NeighbourKernels neighbour_kernels;
}
namespace avx512 {
extern const NeighbourKernels neighbour_kernels;
}

}  // namespace medtrust
