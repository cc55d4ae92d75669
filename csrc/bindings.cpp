// The only file that knows Python: addresses and sizes in, results through the addresses, the GIL released.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <vector>

#include "isa.h"
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

constexpr int kAbi = 1;  // raised with every change of a signature below; medtrust/ops/_native.py expects the same

template <typename T>
static T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// shape: planes, depth, height, width. taps: the 1-D window. constants: c1, c2, covariance norm, guard.
static SsimSpec ssim_spec(const std::vector<int64_t>& shape, int64_t pixel, const std::vector<double>& taps,
                          bool volumetric, bool uniform, bool reflect, const std::vector<double>& constants) {
  if (shape.size() != 4 || constants.size() != 4) throw std::invalid_argument("ssim: 4 sizes and 4 constants expected");
  SsimSpec spec{};
  spec.planes = shape[0], spec.depth = shape[1], spec.height = shape[2], spec.width = shape[3];
  spec.pixel = static_cast<Pixel>(pixel);
  spec.size = int64_t(taps.size());
  spec.depth_size = volumetric ? spec.size : 1;
  spec.taps = taps.data();
  spec.uniform = uniform, spec.reflect = reflect;
  spec.c1 = constants[0], spec.c2 = constants[1], spec.covariance = constants[2], spec.guard = constants[3];
  return spec;
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
         bool uniform, bool reflect, std::vector<double> constants, uintptr_t ssim, uintptr_t cs, int threads) {
        const SsimSpec spec = ssim_spec(shape, pixel, taps, volumetric, uniform, reflect, constants);
        py::gil_scoped_release release;
        ssim_cpu(at<void>(x), at<void>(y), spec, at<double>(ssim), at<double>(cs), threads);
      },
      "Mean SSIM and contrast-structure per plane; x, y: [planes, depth, height, width].");

#ifdef MEDTRUST_CUDA
  m.def("ssim_cuda_tiles", &ssim_cuda_tiles, "Scratch slots per plane.");
  m.def(
      "ssim_cuda",
      [](uintptr_t x, uintptr_t y, std::vector<int64_t> shape, int64_t pixel, std::vector<double> taps, bool volumetric,
         bool uniform, bool reflect, std::vector<double> constants, uintptr_t scratch, uintptr_t ssim, uintptr_t cs,
         uintptr_t stream) {
        const SsimSpec spec = ssim_spec(shape, pixel, taps, volumetric, uniform, reflect, constants);
        py::gil_scoped_release release;
        ssim_cuda(at<void>(x), at<void>(y), spec, at<double>(scratch), at<double>(ssim), at<double>(cs),
                  at<void>(stream));
      },
      "The same on the device, 11 taps, on the given stream.");
#endif
}
