// The device's share of nearest neighbours and balls; neighbours.h says what the bounds mean. All addresses but Rows
// lie on the device, and so does Rows::data; stream is a cudaStream_t.
#pragma once

#include <cstdint>

#include "neighbours.h"

namespace medtrust {

// Keeps, for each query, the `keep` references whose squared distance has the smallest lower bound, ties by index.
// scratch: [2, tile.cols] float32
// bounds:  [rows, keep] float32, a max-heap per row; start at +infinity
// indices: [rows, keep] int64, start at -1
void neighbours_scan_cuda(const DotTile& tile, const int64_t* query_groups, const int64_t* reference_groups,
                          int64_t keep, float* scratch, float* bounds, int64_t* indices, void* stream);

// Squared distances sum (q - r)^2 in float64: each pair has the same bits wherever it is computed.
// chosen: [count] int64 rows of the queries
// others: [count, each] int64 rows of the references, -1 for none; null for all of them, each = references.count
// squared: [count, each] float64; +infinity where there is none
void neighbours_distances_cuda(const Rows& queries, const Rows& references, const int64_t* chosen, int64_t count,
                               const int64_t* others, int64_t each, double* squared, void* stream);

// As neighbours_balls. scratch: [3, tile.cols] float32
void neighbours_balls_cuda(const DotTile& tile, const Rows& queries, const Rows& references, const double* query_radii,
                           const double* reference_radii, double square_scale, bool inclusive, float* scratch,
                           int64_t* in_balls, uint8_t* recalled, uint8_t* covered, void* stream);

}  // namespace medtrust
