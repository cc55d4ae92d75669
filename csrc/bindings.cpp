// The only file that knows Python: addresses and sizes in, results through the addresses, the GIL released.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "candidates.h"
#include "copies.h"
#include "halve.h"
#include "isa.h"
#include "mmd.h"
#include "mmd_cuda.h"
#include "neighbours.h"
#include "neighbours_cuda.h"
#include "radiomics.h"
#include "radiomics_cuda.h"
#include "sampler.h"
#include "ssim.h"
#include "ssim_gradient.h"

namespace py = pybind11;
using namespace medtrust;

#ifdef MEDTRUST_CUDA
constexpr bool kWithCuda = true;
#else
constexpr bool kWithCuda = false;
#endif
#ifndef MEDTRUST_ARCHS
#define MEDTRUST_ARCHS ""
#endif

constexpr int kAbi = 12;  // raised with every change of a signature below; medtrust/ops/_native.py expects the same

template <typename T>
static T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// shape: planes, depth, height, width. taps: the 1-D window. constants: c1, c2, covariance norm, guard.
static SsimSpec ssim_spec(const std::vector<int64_t>& shape, int64_t pixel, const std::vector<double>& taps,
                          bool volumetric, bool reflect, const std::vector<double>& constants) {
  if (shape.size() != 4 || constants.size() != 4) throw std::invalid_argument("ssim: 4 sizes and 4 constants expected");
  SsimSpec spec{};
  spec.planes = shape[0], spec.depth = shape[1], spec.height = shape[2], spec.width = shape[3];
  spec.pixel = static_cast<Pixel>(pixel);
  spec.size = int64_t(taps.size());
  spec.depth_size = volumetric ? spec.size : 1;
  spec.taps = taps.data();
  spec.reflect = reflect;
  spec.c1 = constants[0], spec.c2 = constants[1], spec.covariance = constants[2], spec.guard = constants[3];
  return spec;
}

// shape: rows, cols, first row, first col, width.
static DotTile dot_tile(uintptr_t dots, const std::vector<int64_t>& shape, uintptr_t row_squares,
                        uintptr_t col_squares) {
  if (shape.size() != 5) throw std::invalid_argument("neighbours: a tile has 5 sizes");
  return {at<float>(dots),         shape[0], shape[1], shape[2], shape[3], at<double>(row_squares),
          at<double>(col_squares), shape[4]};
}

// Address, rows, columns, whether float64.
using RowsArgument = std::tuple<uintptr_t, int64_t, int64_t, bool>;
static Rows feature_rows(const RowsArgument& a) {
  return {at<void>(std::get<0>(a)), std::get<1>(a), std::get<2>(a), std::get<3>(a)};
}

#ifdef MEDTRUST_MATRIX
// Addresses of tiles, squares and gaps; rows, columns.
using PackedArgument = std::tuple<uintptr_t, uintptr_t, uintptr_t, int64_t, int64_t>;
static Packed packed_rows(const PackedArgument& a) {
  return {at<uint16_t>(std::get<0>(a)), at<double>(std::get<1>(a)), at<double>(std::get<2>(a)), std::get<3>(a),
          std::get<4>(a)};
}
#endif

// Seed, step, offset of the first element.
using NoiseArgument = std::tuple<int64_t, int64_t, int64_t>;
static NoiseSource noise_source(const NoiseArgument& a) { return {std::get<0>(a), std::get<1>(a), std::get<2>(a)}; }

// sizes: count, half, rows, keep, quantise. numbers: guidance, lo, hi, from, scale.
static SamplerSpec sampler_spec(const std::vector<int64_t>& sizes, const std::vector<double>& numbers, int64_t seed,
                                int64_t offset) {
  if (sizes.size() != 5 || numbers.size() != 6) throw std::invalid_argument("sampler: 5 sizes and 6 numbers expected");
  SamplerSpec spec{};
  spec.count = sizes[0], spec.half = static_cast<Half>(sizes[1]), spec.rows = sizes[2];
  spec.keep = static_cast<Keep>(sizes[3]), spec.quantise = sizes[4] != 0;
  spec.guidance = float(numbers[0]), spec.lo = float(numbers[1]), spec.hi = float(numbers[2]);
  spec.from = float(numbers[3]), spec.scale = float(numbers[4]), spec.input_scale = float(numbers[5]);
  spec.seed = seed, spec.offset = offset;
  return spec;
}

// Addresses: x, conditional, unconditional, memory, table, row; next, kept, not a number, told, told again.
static SamplerBuffers sampler_buffers(const std::vector<uintptr_t>& a) {
  if (a.size() != 11) throw std::invalid_argument("sampler: 11 addresses expected");
  return {at<float>(a[0]),   at<void>(a[1]), at<void>(a[2]),  at<float>(a[3]),  at<float>(a[4]),
          at<int64_t>(a[5]), at<void>(a[6]), at<float>(a[7]), at<int32_t>(a[8]), at<float>(a[9]), at<float>(a[10])};
}

// shape: planes, height, width, channels. binning: lo, multiply, divide.
static RadiomicsSpec radiomics_spec(const std::vector<int64_t>& shape, int64_t grey, const std::vector<double>& binning,
                                    int64_t levels, bool merged, int64_t families) {
  if (shape.size() != 4 || binning.size() != 3) throw std::invalid_argument("radiomics: 4 sizes and 3 numbers expected");
  return {shape[0],   shape[1],   shape[2], shape[3], static_cast<Grey>(grey), binning[0],
          binning[1], binning[2], levels,   merged,   families};
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "medtrust's native kernels; medtrust.ops._native is the only importer.";
  m.attr("abi") = kAbi;
  m.attr("with_cuda") = kWithCuda;
  m.attr("archs") = std::string(MEDTRUST_ARCHS);
  m.def("isa", [] { return std::string(isa_name(isa())); }, "Instruction set in use.");
  m.def(
      "matrix",
      [] {
        const MatrixKernels* const unit = matrix_kernels();
        return std::string(unit == nullptr ? "" : unit->name);
      },
      "Matrix unit in use, empty where there is none.");
  m.def("max_threads", &max_threads, "OpenMP threads that a parallel region would get.");

  m.def(
      "ssim_cpu",
      [](uintptr_t x, uintptr_t y, std::vector<int64_t> shape, int64_t pixel, std::vector<double> taps, bool volumetric,
         bool reflect, std::vector<double> constants, uintptr_t ssim, uintptr_t cs, int threads) {
        const SsimSpec spec = ssim_spec(shape, pixel, taps, volumetric, reflect, constants);
        py::gil_scoped_release release;
        ssim_cpu(at<void>(x), at<void>(y), spec, at<double>(ssim), at<double>(cs), threads);
      },
      "Mean SSIM and contrast-structure per plane; x, y: [planes, depth, height, width].");

  m.def(
      "ssim_gradient_cpu",
      [](uintptr_t x, uintptr_t y, bool is_double, std::vector<int64_t> shape, std::vector<double> taps, bool reflect,
         std::vector<double> constants, uintptr_t upstream, uintptr_t grad_x, uintptr_t grad_y, int threads) {
        const SsimSpec spec = ssim_spec(shape, int64_t(Pixel::f32), taps, false, reflect, constants);
        py::gil_scoped_release release;
        ssim_gradient_cpu(at<void>(x), at<void>(y), is_double, spec, at<double>(upstream), at<void>(grad_x),
                          at<void>(grad_y), threads);
      },
      "Gradient of a weighted sum of both means per plane with respect to the images.");
  m.def(
      "halve_cpu",
      [](uintptr_t images, int64_t planes, int64_t height, int64_t width, int64_t pixel, uintptr_t means, int threads) {
        py::gil_scoped_release release;
        halve_cpu(at<void>(images), planes, height, width, static_cast<Pixel>(pixel), at<float>(means), threads);
      },
      "2x2 means of [planes, height, width].");
  m.def(
      "neighbours_prepare",
      [](RowsArgument rows, uintptr_t centre, double scale, uintptr_t rounded, uintptr_t squares, int threads) {
        py::gil_scoped_release release;
        neighbours_prepare(feature_rows(rows), at<double>(centre), scale, at<float>(rounded), at<double>(squares),
                           threads);
      },
      "Centred float32 rows and their squared norms.");
  m.def(
      "neighbours_scan",
      [](uintptr_t dots, std::vector<int64_t> shape, uintptr_t row_squares, uintptr_t col_squares,
         uintptr_t query_groups, uintptr_t reference_groups, int64_t keep, uintptr_t bounds, uintptr_t indices,
         int threads) {
        const DotTile tile = dot_tile(dots, shape, row_squares, col_squares);
        py::gil_scoped_release release;
        neighbours_scan(tile, at<int64_t>(query_groups), at<int64_t>(reference_groups), keep, at<float>(bounds),
                        at<int64_t>(indices), threads);
      },
      "Keep the candidates with the smallest lower bounds.");
  m.def(
      "neighbours_refine",
      [](RowsArgument queries, RowsArgument references, uintptr_t query_squares, double square_scale, int64_t keep,
         uintptr_t bounds, uintptr_t indices, uintptr_t filled, int64_t k, uintptr_t squared, uintptr_t nearest,
         uintptr_t certified, int threads) {
        py::gil_scoped_release release;
        neighbours_refine(feature_rows(queries), feature_rows(references), at<double>(query_squares), square_scale,
                          keep, at<float>(bounds), at<int64_t>(indices), at<int32_t>(filled), k, at<double>(squared),
                          at<int64_t>(nearest), at<bool>(certified), threads);
      },
      "Exact distances to the candidates, and the certificate.");
  m.def(
      "neighbours_sweep",
      [](RowsArgument queries, RowsArgument references, uintptr_t chosen, int64_t count, uintptr_t query_groups,
         uintptr_t reference_groups, int64_t k, uintptr_t squared, uintptr_t nearest, int threads) {
        py::gil_scoped_release release;
        neighbours_sweep(feature_rows(queries), feature_rows(references), at<int64_t>(chosen), count,
                         at<int64_t>(query_groups), at<int64_t>(reference_groups), k, at<double>(squared),
                         at<int64_t>(nearest), threads);
      },
      "Exact neighbours of chosen rows from all references.");
  m.def(
      "neighbours_balls",
      [](uintptr_t dots, std::vector<int64_t> shape, uintptr_t row_squares, uintptr_t col_squares, RowsArgument queries,
         RowsArgument references, uintptr_t query_radii, uintptr_t reference_radii, double square_scale, bool inclusive,
         uintptr_t in_balls, uintptr_t recalled, uintptr_t covered, int threads) {
        const DotTile tile = dot_tile(dots, shape, row_squares, col_squares);
        py::gil_scoped_release release;
        neighbours_balls(tile, feature_rows(queries), feature_rows(references), at<double>(query_radii),
                         at<double>(reference_radii), square_scale, inclusive, at<int64_t>(in_balls),
                         at<uint8_t>(recalled), at<uint8_t>(covered), threads);
      },
      "Ball membership within a tile.");
  m.def(
      "max_ncc",
      [](uintptr_t x, uintptr_t y, bool is_double, std::vector<int64_t> shape, int64_t radius, uintptr_t largest,
         int threads) {
        const ImagePairs pairs{at<void>(x), at<void>(y), shape.at(0), shape.at(1), shape.at(2), shape.at(3), is_double};
        py::gil_scoped_release release;
        max_ncc(pairs, radius, at<double>(largest), threads);
      },
      "Largest correlation over shifts; x, y: [count, channels, height, width].");
  m.def(
      "tile_l2",
      [](uintptr_t x, uintptr_t y, bool is_double, std::vector<int64_t> shape, int64_t tile, uintptr_t farthest,
         int threads) {
        const ImagePairs pairs{at<void>(x), at<void>(y), shape.at(0), shape.at(1), shape.at(2), shape.at(3), is_double};
        py::gil_scoped_release release;
        tile_l2(pairs, tile, at<double>(farthest), threads);
      },
      "Largest distance of corresponding tiles.");
  m.def(
      "mmd_sums",
      [](RowsArgument real, RowsArgument fake, uintptr_t centre, int64_t kind, double scale, uintptr_t sums,
         int threads) {
        py::gil_scoped_release release;
        mmd_sums(feature_rows(real), feature_rows(fake), at<double>(centre), static_cast<Discrepancy>(kind), scale,
                 at<double>(sums), threads);
      },
      "Sums of a kernel over the pairs of rows.");
#ifdef MEDTRUST_MATRIX
  m.def(
      "candidates_pack",
      [](RowsArgument rows, uintptr_t centre, double scale, bool right, uintptr_t tiles, uintptr_t squares,
         uintptr_t gaps, int threads) {
        py::gil_scoped_release release;
        candidates_pack(feature_rows(rows), at<double>(centre), scale, right, at<uint16_t>(tiles), at<double>(squares),
                        at<double>(gaps), threads);
      },
      "Rows rounded for a matrix unit.");
  m.def(
      "candidates_search",
      [](PackedArgument queries, PackedArgument references, int64_t first, uintptr_t query_groups,
         uintptr_t reference_groups, std::vector<uintptr_t> found, int64_t k, int64_t capacity, int threads) {
        if (found.size() != 5) throw std::invalid_argument("candidates: 5 addresses expected");
        const Candidates lists{at<float>(found[0]), at<float>(found[1]),   at<int64_t>(found[2]),
                               at<float>(found[3]), at<int32_t>(found[4]), k, capacity};
        py::gil_scoped_release release;
        candidates_search(packed_rows(queries), packed_rows(references), first, at<int64_t>(query_groups),
                          at<int64_t>(reference_groups), lists, threads);
      },
      "List the references that may be among the nearest.");
  m.def(
      "candidates_balls",
      [](PackedArgument queries, PackedArgument references, int64_t first, RowsArgument query_rows,
         RowsArgument reference_rows, uintptr_t query_radii, uintptr_t reference_radii, double square_scale,
         bool inclusive, uintptr_t in_balls, uintptr_t recalled, uintptr_t covered, uintptr_t left, int threads) {
        py::gil_scoped_release release;
        candidates_balls(packed_rows(queries), packed_rows(references), first, feature_rows(query_rows),
                         feature_rows(reference_rows), at<double>(query_radii), at<double>(reference_radii),
                         square_scale, inclusive, at<int64_t>(in_balls), at<uint8_t>(recalled), at<uint8_t>(covered),
                         at<bool>(left), threads);
      },
      "Ball membership from products of a matrix unit.");
#endif

  m.def(
      "philox_cpu",
      [](int64_t kind, NoiseArgument source, int64_t count, uintptr_t out, int threads) {
        py::gil_scoped_release release;
        philox_cpu(static_cast<Noise>(kind), noise_source(source), count, at<void>(out), threads);
      },
      "Words, uniforms or normals of (seed, step) from an element on.");
  m.def(
      "sampler_step_cpu",
      [](std::vector<int64_t> sizes, std::vector<double> numbers, int64_t seed, int64_t offset,
         std::vector<uintptr_t> buffers, int threads) {
        const SamplerSpec spec = sampler_spec(sizes, numbers, seed, offset);
        const SamplerBuffers addresses = sampler_buffers(buffers);
        py::gil_scoped_release release;
        sampler_step_cpu(spec, addresses, threads);
      },
      "One row of a sampler's table over all elements.");
  m.def(
      "reparameterise_cpu",
      [](uintptr_t mean, uintptr_t log_variance, NoiseArgument source, int64_t count, uintptr_t out, int threads) {
        py::gil_scoped_release release;
        reparameterise_cpu(at<float>(mean), at<float>(log_variance), noise_source(source), count, at<float>(out),
                           threads);
      },
      "mean + exp(log_variance / 2) noise.");

  m.def(
      "radiomics_cpu",
      [](uintptr_t images, uintptr_t mask, std::vector<int64_t> shape, int64_t grey, std::vector<double> binning,
         int64_t levels, bool merged, int64_t families, uintptr_t values, uintptr_t states, int threads) {
        const RadiomicsSpec spec = radiomics_spec(shape, grey, binning, levels, merged, families);
        py::gil_scoped_release release;
        radiomics_cpu(at<void>(images), at<uint8_t>(mask), spec, at<double>(values), at<int64_t>(states), threads);
      },
      "Radiomics of each plane; images: [planes, height, width].");

#ifdef MEDTRUST_CUDA
  m.def(
      "philox_cuda",
      [](int64_t kind, NoiseArgument source, int64_t count, uintptr_t out, uintptr_t stream) {
        py::gil_scoped_release release;
        philox_cuda(static_cast<Noise>(kind), noise_source(source), count, at<void>(out), at<void>(stream));
      },
      "The same on the device, on the given stream.");
  m.def(
      "sampler_step_cuda",
      [](std::vector<int64_t> sizes, std::vector<double> numbers, int64_t seed, int64_t offset,
         std::vector<uintptr_t> buffers, uintptr_t stream) {
        const SamplerSpec spec = sampler_spec(sizes, numbers, seed, offset);
        const SamplerBuffers addresses = sampler_buffers(buffers);
        py::gil_scoped_release release;
        sampler_step_cuda(spec, addresses, at<void>(stream));
      },
      "The same on the device, on the given stream.");
  m.def(
      "reparameterise_cuda",
      [](uintptr_t mean, uintptr_t log_variance, NoiseArgument source, int64_t count, uintptr_t out,
         uintptr_t stream) {
        py::gil_scoped_release release;
        reparameterise_cuda(at<float>(mean), at<float>(log_variance), noise_source(source), count, at<float>(out),
                            at<void>(stream));
      },
      "The same on the device, on the given stream.");
  m.def(
      "radiomics_cuda_scratch",
      [](std::vector<int64_t> shape, int64_t grey, std::vector<double> binning, int64_t levels, bool merged,
         int64_t families) {
        return radiomics_cuda_scratch(radiomics_spec(shape, grey, binning, levels, merged, families));
      },
      "Bytes of scratch per plane.");
  m.def(
      "radiomics_cuda",
      [](uintptr_t images, uintptr_t mask, std::vector<int64_t> shape, int64_t grey, std::vector<double> binning,
         int64_t levels, bool merged, int64_t families, uintptr_t scratch, uintptr_t values, uintptr_t states,
         uintptr_t stream) {
        const RadiomicsSpec spec = radiomics_spec(shape, grey, binning, levels, merged, families);
        py::gil_scoped_release release;
        radiomics_cuda(at<void>(images), at<uint8_t>(mask), spec, at<void>(scratch), at<double>(values),
                       at<int64_t>(states), at<void>(stream));
      },
      "The same on the device, on the given stream.");
  m.def(
      "halve_cuda",
      [](uintptr_t images, int64_t planes, int64_t height, int64_t width, int64_t pixel, uintptr_t means,
         uintptr_t stream) {
        py::gil_scoped_release release;
        halve_cuda(at<void>(images), planes, height, width, static_cast<Pixel>(pixel), at<float>(means),
                   at<void>(stream));
      },
      "The same on the device, on the given stream.");
  m.def(
      "neighbours_scan_cuda",
      [](uintptr_t dots, std::vector<int64_t> shape, uintptr_t row_squares, uintptr_t col_squares,
         uintptr_t query_groups, uintptr_t reference_groups, int64_t keep, uintptr_t scratch, uintptr_t bounds,
         uintptr_t indices, uintptr_t stream) {
        const DotTile tile = dot_tile(dots, shape, row_squares, col_squares);
        py::gil_scoped_release release;
        neighbours_scan_cuda(tile, at<int64_t>(query_groups), at<int64_t>(reference_groups), keep, at<float>(scratch),
                             at<float>(bounds), at<int64_t>(indices), at<void>(stream));
      },
      "The same on the device, on the given stream.");
  m.def(
      "neighbours_distances_cuda",
      [](RowsArgument queries, RowsArgument references, uintptr_t chosen, int64_t count, uintptr_t others, int64_t each,
         uintptr_t squared, uintptr_t stream) {
        py::gil_scoped_release release;
        neighbours_distances_cuda(feature_rows(queries), feature_rows(references), at<int64_t>(chosen), count,
                                  at<int64_t>(others), each, at<double>(squared), at<void>(stream));
      },
      "Squared float64 distances of chosen queries to listed references, or to all.");
  m.def(
      "neighbours_balls_cuda",
      [](uintptr_t dots, std::vector<int64_t> shape, uintptr_t row_squares, uintptr_t col_squares, RowsArgument queries,
         RowsArgument references, uintptr_t query_radii, uintptr_t reference_radii, double square_scale, bool inclusive,
         uintptr_t scratch, uintptr_t in_balls, uintptr_t recalled, uintptr_t covered, uintptr_t stream) {
        const DotTile tile = dot_tile(dots, shape, row_squares, col_squares);
        py::gil_scoped_release release;
        neighbours_balls_cuda(tile, feature_rows(queries), feature_rows(references), at<double>(query_radii),
                              at<double>(reference_radii), square_scale, inclusive, at<float>(scratch),
                              at<int64_t>(in_balls), at<uint8_t>(recalled), at<uint8_t>(covered), at<void>(stream));
      },
      "The same on the device, on the given stream.");
  m.def("mmd_cuda_tiles", &mmd_cuda_tiles, "Scratch slots.");
  m.def(
      "mmd_cuda",
      [](RowsArgument x, RowsArgument y, bool same, int64_t kind, double scale, uintptr_t scratch, uintptr_t sum,
         uintptr_t stream) {
        py::gil_scoped_release release;
        mmd_cuda(feature_rows(x), feature_rows(y), same, static_cast<Discrepancy>(kind), scale, at<double>(scratch),
                 at<double>(sum), at<void>(stream));
      },
      "Sum of a kernel over pairs of rows, on the given stream.");
  m.def("ssim_cuda_tiles", &ssim_cuda_tiles, "Scratch slots per plane.");
  m.def(
      "ssim_cuda",
      [](uintptr_t x, uintptr_t y, std::vector<int64_t> shape, int64_t pixel, std::vector<double> taps, bool volumetric,
         bool reflect, std::vector<double> constants, uintptr_t scratch, uintptr_t ssim, uintptr_t cs,
         uintptr_t stream) {
        const SsimSpec spec = ssim_spec(shape, pixel, taps, volumetric, reflect, constants);
        py::gil_scoped_release release;
        ssim_cuda(at<void>(x), at<void>(y), spec, at<double>(scratch), at<double>(ssim), at<double>(cs),
                  at<void>(stream));
      },
      "The same on the device, 11 taps, on the given stream.");
#endif
}
