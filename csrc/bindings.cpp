// The only file that knows Python: addresses and sizes in, results through the addresses, the GIL released.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "halve.h"
#include "isa.h"
#include "neighbours.h"
#include "ssim.h"

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

constexpr int kAbi = 4;  // raised with every change of a signature below; medtrust/ops/_native.py expects the same

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

PYBIND11_MODULE(_C, m) {
  m.doc() = "medtrust's native kernels; medtrust.ops._native is the only importer.";
  m.attr("abi") = kAbi;
  m.attr("with_cuda") = kWithCuda;
  m.attr("archs") = std::string(MEDTRUST_ARCHS);
  m.def("isa", [] { return std::string(isa_name(isa())); }, "Instruction set in use.");
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
         uintptr_t bounds, uintptr_t indices, int64_t k, uintptr_t squared, uintptr_t nearest, uintptr_t certified,
         int threads) {
        py::gil_scoped_release release;
        neighbours_refine(feature_rows(queries), feature_rows(references), at<double>(query_squares), square_scale,
                          keep, at<float>(bounds), at<int64_t>(indices), k, at<double>(squared), at<int64_t>(nearest),
                          at<bool>(certified), threads);
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
      "poly3_sum",
      [](uintptr_t dots, int64_t rows, int64_t cols, double scale, bool diagonal, int threads) {
        py::gil_scoped_release release;
        return poly3_sum(at<double>(dots), rows, cols, scale, diagonal, threads);
      },
      "Sum of (scale * dot + 1)^3 over a tile.");

#ifdef MEDTRUST_CUDA
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
