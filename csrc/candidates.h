// The neighbour passes on matrix units: bfloat16 products, bounds that hold for them, and exact decisions where they do
// not suffice.
//
// With q^ and r^ the rounded rows, |q.r - q^.r^| <= |q - q^||r| + |q^||r - r^|, both measured in float64, and the sum
// itself errs by at most (d + 16) 2^-24 |q^||r^|. A block of 32 x 32 products is looked at while it is in the first cache.
#pragma once

#include "matrix.h"
#include "neighbours.h"

namespace medtrust {

// Rows rounded for a matrix unit.
struct Packed {
  const uint16_t* tiles;  // whole blocks of 32 rows, zeros beyond the last row and the last feature
  const double* squares;  // [count] |r|^2, scaled
  const double* gaps;     // [count] |r - r^|, scaled
  int64_t count, width;
};

// What a query knows of its neighbours so far. Start at -, -, -, +infinity, 0.
struct Candidates {
  float* uppers;     // [n, capacity] upper bounds of |r|^2 - 2 q.r of the candidates
  float* bounds;     // [n, capacity] lower ones
  int64_t* indices;  // [n, capacity]
  float* worst;      // [n] no more than k references can lie below: nothing whose lower bound is above is listed
  int32_t* filled;   // [n] candidates listed, or -1: there were too many, and the row is not answered
  int64_t k, capacity;
};

// Steps of 64 bytes that a row of bfloat16 takes.
inline int64_t bf16_steps(int64_t width) { return (width + 31) / 32; }

// outputs: tiles [ceil(count / 32) * 32 * steps * 32], squares, gaps
void candidates_pack(const Rows& rows, const double* centre, double scale, bool right, uint16_t* tiles, double* squares,
                     double* gaps, int threads);

// Adds the references that may be among a query's k nearest. first: number of the first reference.
// groups: of all queries and all references, or both null
void candidates_search(const Packed& queries, const Packed& references, int64_t first, const int64_t* query_groups,
                       const int64_t* reference_groups, const Candidates& found, int threads);

// neighbours_balls for all queries and a block of references. A block of 256 queries in which the bounds leave too many
// pairs open is given up: left [ceil(queries / 256)] is set, and its counts mean nothing.
void candidates_balls(const Packed& queries, const Packed& references, int64_t first, const Rows& query_rows,
                      const Rows& reference_rows, const double* query_radii, const double* reference_radii,
                      double square_scale, bool inclusive, int64_t* in_balls, uint8_t* recalled, uint8_t* covered,
                      bool* left, int threads);

}  // namespace medtrust
