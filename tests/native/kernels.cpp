// Runs every CPU kernel on buffers of exactly the size it was promised: empty, one element, odd sizes, extreme values.
// Built with sanitizers it finds reads and writes outside; by itself it checks results that are known beforehand.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <stdexcept>
#include <vector>

#include "../../csrc/candidates.h"
#include "../../csrc/copies.h"
#include "../../csrc/halve.h"
#include "../../csrc/isa.h"
#include "../../csrc/mmd.h"
#include "../../csrc/neighbours.h"
#include "../../csrc/radiomics.h"
#include "../../csrc/sampler.h"
#include "../../csrc/ssim.h"
#include "../../csrc/ssim_gradient.h"

using namespace medtrust;

static int failures = 0;
static const char* where = "";

static void check(bool holds, const char* what, int line) {
  if (holds) return;
  std::printf("line %d, %s: %s\n", line, where, what);
  ++failures;
}
#define CHECK(condition) check(condition, #condition, __LINE__)

static std::mt19937 random_bits(7);
static double uniform() { return double(random_bits()) / 4294967296.0; }

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();

template <typename T>
static std::vector<T> noise(int64_t count, double low, double high) {
  std::vector<T> v(size_t(count), T{});
  for (T& a : v) a = T(low + (high - low) * uniform());
  return v;
}

static std::vector<double> gaussian(int64_t size) {
  std::vector<double> taps(size_t(size), 0.0);
  double sum = 0;
  for (int64_t i = 0; i < size; ++i) sum += taps[size_t(i)] = std::exp(-double((i - size / 2) * (i - size / 2)) / 4.5);
  for (double& tap : taps) tap /= sum;
  return taps;
}

// The definition, one window at a time in float64.
template <typename T>
static double ssim_of(const std::vector<T>& x, const std::vector<T>& y, const SsimSpec& s, int64_t plane) {
  const auto at = [&](int64_t d, int64_t r, int64_t c) {
    const auto fold = [](int64_t i, int64_t n) { return i < 0 ? -i : i < n ? i : 2 * (n - 1) - i; };
    return size_t(((plane * s.depth + fold(d, s.depth)) * s.height + fold(r, s.height)) * s.width + fold(c, s.width));
  };
  const int64_t edge = s.reflect ? s.size / 2 : 0, deep = s.reflect ? s.depth_size / 2 : 0;
  double total = 0;
  for (int64_t d = 0; d < s.out_depth(); ++d)
    for (int64_t r = 0; r < s.out_height(); ++r)
      for (int64_t c = 0; c < s.out_width(); ++c) {
        const double px = double(x[at(d, r, c)]), py = double(y[at(d, r, c)]);
        double mx = 0, my = 0, squares = 0, product = 0;
        for (int64_t l = 0; l < s.depth_size; ++l)
          for (int64_t i = 0; i < s.size; ++i)
            for (int64_t j = 0; j < s.size; ++j) {
              const size_t p = at(d + l - deep, r + i - edge, c + j - edge);
              const double w = (s.depth_size > 1 ? s.taps[l] : 1.0) * s.taps[i] * s.taps[j];
              const double a = double(x[p]) - px, b = double(y[p]) - py;
              mx += w * a, my += w * b, squares += w * (a * a + b * b), product += w * a * b;
            }
        const double variances = s.covariance * (squares - mx * mx - my * my);
        const double shared = s.covariance * (product - mx * my);
        mx += px, my += py;
        total += (2 * mx * my + s.c1) / (mx * mx + my * my + s.c1) * (2 * shared + s.c2) / (variances + s.c2);
      }
  return total / double(s.out_depth() * s.out_height() * s.out_width());
}

template <typename T>
static void ssim_case(Pixel pixel, int64_t depth, int64_t height, int64_t width, const std::vector<double>& taps,
                      bool reflect, double low, double high, double data_range) {
  SsimSpec s{};
  s.planes = 2, s.depth = depth, s.height = height, s.width = width, s.pixel = pixel;
  s.size = int64_t(taps.size()), s.depth_size = depth > 1 ? s.size : 1, s.taps = taps.data(), s.reflect = reflect;
  s.c1 = 1e-4 * data_range * data_range, s.c2 = 9e-4 * data_range * data_range, s.covariance = 1.02;
  s.guard = 2 * data_range * data_range;
  const int64_t count = 2 * depth * height * width;
  std::vector<T> x = noise<T>(count, low, high), y = noise<T>(count, low, high);
  double ssim[2] = {9, 9}, cs[2] = {9, 9}, again[2];
  ssim_cpu(x.data(), y.data(), s, ssim, cs, 1);
  for (int plane = 0; plane < 2; ++plane) CHECK(std::fabs(ssim[plane] - ssim_of(x, y, s, plane)) < 2e-6);
  ssim_cpu(x.data(), y.data(), s, again, cs, 3);
  CHECK(ssim[0] == again[0] && ssim[1] == again[1]);
}

static void ssim_cases() {
  where = "ssim";
  const std::vector<double> gauss = gaussian(11), five = gaussian(5), seven(7, 1.0 / 7), most(63, 1.0 / 63), one(1, 1.0);
  for (int64_t width : {11, 12, 37, 67}) {
    ssim_case<uint8_t>(Pixel::u8, 1, 13, width, gauss, false, 0, 256, 255);
    ssim_case<uint8_t>(Pixel::u8, 1, 13, width, seven, false, 0, 256, 255);
    ssim_case<uint16_t>(Pixel::u16, 1, 19, width, gauss, true, 0, 65536, 65535);
    ssim_case<float>(Pixel::f32, 1, 14, width, gauss, false, 1060, 1070, 80);
    ssim_case<float>(Pixel::f32, 1, 11, width, five, true, -1e6, 1e6, 10);  // beyond the guard: float64
    ssim_case<float>(Pixel::f32, 12, 11, width, five, false, 0, 1, 1);
  }
  ssim_case<uint8_t>(Pixel::u8, 1, 1, 1, one, false, 0, 256, 255);
  ssim_case<uint8_t>(Pixel::u8, 1, 64, 65, most, true, 0, 256, 255);
  ssim_case<uint8_t>(Pixel::u8, 1, 7, 600, seven, false, 255, 255, 255);
  ssim_case<float>(Pixel::f32, 1, 7, 9, seven, false, 0, 1e-30, 1e-30);

  SsimSpec empty{};
  empty.depth = 1, empty.height = empty.width = 11, empty.size = 11, empty.depth_size = 1, empty.taps = gauss.data();
  ssim_cpu(nullptr, nullptr, empty, nullptr, nullptr, 2);
  empty.planes = 1, empty.width = 10;
  try {
    ssim_cpu(nullptr, nullptr, empty, nullptr, nullptr, 2);
    CHECK(!"an image smaller than the window is refused");
  } catch (const std::invalid_argument&) {
  }
  for (float extreme : {kLargest, -kLargest, float(kInfinity), std::nanf("")}) {  // no value is right: none may crash
    std::vector<float> x(11 * 11, extreme), y(11 * 11, 1.0f);
    double ssim = 0, cs = 0;
    SsimSpec s = empty;
    s.width = 11, s.pixel = Pixel::f32, s.c1 = s.c2 = s.covariance = 1, s.guard = 2;
    ssim_cpu(x.data(), y.data(), s, &ssim, &cs, 1);
  }
}

static void halve_cases() {
  where = "halve";
  for (int64_t height : {1, 2, 7})
    for (int64_t width : {1, 2, 33}) {
      const std::vector<uint16_t> images = noise<uint16_t>(3 * height * width, 0, 65536);
      std::vector<float> means(size_t(3 * (height / 2) * (width / 2)), 0.0f);
      halve_cpu(images.data(), 3, height, width, Pixel::u16, means.data(), 2);
      if (!means.empty()) CHECK(means[0] == 0.25f * (images[0] + images[1] + images[size_t(width)] + images[size_t(width) + 1]));
    }
  halve_cpu(nullptr, 0, 4, 4, Pixel::u8, nullptr, 1);
}

static void neighbour_cases() {
  where = "neighbours";
  for (int64_t width : {1, 3, 17, 64, 67})
    for (int64_t count : {1, 2, 33, 130}) {
      std::vector<float> rows = noise<float>(count * width, -1, 1);
      for (int64_t i = 0; i < width && count > 2; ++i) rows[size_t(width + i)] = rows[size_t(i)];  // a copy: distance 0
      const Rows set{rows.data(), count, width, false};
      const std::vector<double> centre = noise<double>(width, -0.1, 0.1);
      std::vector<float> rounded(rows.size());
      std::vector<double> squares(size_t(count), 0.0);
      neighbours_prepare(set, centre.data(), 0.5, rounded.data(), squares.data(), 2);
      std::vector<float> dots(size_t(count * count), 0.0f);
      for (int64_t i = 0; i < count; ++i)
        for (int64_t j = 0; j < count; ++j)
          for (int64_t k = 0; k < width; ++k)
            dots[size_t(i * count + j)] += rounded[size_t(i * width + k)] * rounded[size_t(j * width + k)];
      const DotTile tile{dots.data(), count, count, 0, 0, squares.data(), squares.data(), width};
      const int64_t k = count < 3 ? count : 3, keep = k + 16 < count ? k + 16 : count;
      std::vector<float> bounds(size_t(count * keep), float(kInfinity));
      std::vector<int64_t> candidates(size_t(count * keep), -1), nearest(size_t(count * k), 0), swept(nearest);
      neighbours_scan(tile, nullptr, nullptr, keep, bounds.data(), candidates.data(), 2);
      std::vector<double> squared(size_t(count * k), -1.0), exact(squared);
      std::vector<uint8_t> certified(size_t(count), 0);
      static_assert(sizeof(bool) == 1, "certified is an array of bytes");
      neighbours_refine(set, set, squares.data(), 0.25, keep, bounds.data(), candidates.data(), nullptr, k,
                        squared.data(), nearest.data(), reinterpret_cast<bool*>(certified.data()), 2);
      std::vector<int64_t> all(size_t(count), 0);
      for (int64_t i = 0; i < count; ++i) all[size_t(i)] = i;
      neighbours_sweep(set, set, all.data(), count, nullptr, nullptr, k, exact.data(), swept.data(), 2);
      for (int64_t i = 0; i < count; ++i) {
        CHECK(exact[size_t(i * k)] == 0);
        for (int64_t j = 0; j < k && certified[size_t(i)]; ++j)
          CHECK(nearest[size_t(i * k + j)] == swept[size_t(i * k + j)] && squared[size_t(i * k + j)] == exact[size_t(i * k + j)]);
      }
      neighbours_sweep(set, set, all.data(), count, all.data(), all.data(), k, exact.data(), swept.data(), 1);
      CHECK(count > k || swept[size_t(count * k - 1)] == -1);
      std::vector<double> radii(size_t(count), 0.3);
      std::vector<int64_t> in_balls(size_t(count), 0);
      std::vector<uint8_t> recalled(size_t(count), 0), covered(size_t(count), 0);
      neighbours_balls(tile, set, set, radii.data(), radii.data(), 0.25, true, in_balls.data(), recalled.data(),
                       covered.data(), 2);
      for (int64_t i = 0; i < count; ++i) CHECK(in_balls[size_t(i)] >= 1 && recalled[size_t(i)] && covered[size_t(i)]);
    }
}

static void candidate_cases() {
  where = "candidates";
  if (matrix_kernels() == nullptr) return;  // this processor has no matrix unit
  for (int64_t width : {1, 31, 67})
    for (int64_t count : {1, 33, 130}) {
      const std::vector<float> values = noise<float>(count * width, -1, 1);
      const Rows set{values.data(), count, width, false};
      const std::vector<double> centre(size_t(width), 0.1);
      const int64_t room = (count + 31) / 32 * 32 * bf16_steps(width) * 32;
      std::vector<uint16_t> left(size_t(room), 0), right(left);
      std::vector<double> squares(size_t(count), 0.0), gaps(squares);
      candidates_pack(set, centre.data(), 0.25, true, right.data(), squares.data(), gaps.data(), 2);
      candidates_pack(set, centre.data(), 0.25, false, left.data(), squares.data(), gaps.data(), 2);
      const Packed queries{left.data(), squares.data(), gaps.data(), count, width};
      const Packed references{right.data(), squares.data(), gaps.data(), count, width};
      const int64_t k = 1, capacity = 64;
      std::vector<float> uppers(size_t(count * capacity), 0.0f), bounds(uppers), worst(uppers.size() / size_t(capacity), float(kInfinity));
      std::vector<int64_t> indices(size_t(count * capacity), -1), nearest(size_t(count), -1);
      std::vector<int32_t> filled(size_t(count), 0);
      candidates_search(queries, references, 0, nullptr, nullptr,
                        {uppers.data(), bounds.data(), indices.data(), worst.data(), filled.data(), k, capacity}, 2);
      std::vector<double> squared(size_t(count), -1.0);
      std::vector<uint8_t> certified(size_t(count), 0);
      neighbours_refine(set, set, squares.data(), 0.0625, capacity, bounds.data(), indices.data(), filled.data(), k,
                        squared.data(), nearest.data(), reinterpret_cast<bool*>(certified.data()), 2);
      for (int64_t i = 0; i < count; ++i)
        CHECK(!certified[size_t(i)] || (nearest[size_t(i)] == i && squared[size_t(i)] == 0));
      std::vector<double> radii(size_t(count), 0.3);
      std::vector<int64_t> in_balls(size_t(count), 0);
      std::vector<uint8_t> recalled(size_t(count), 0), covered(recalled), open(size_t((count + 255) / 256), 0);
      candidates_balls(queries, references, 0, set, set, radii.data(), radii.data(), 0.0625, true, in_balls.data(),
                       recalled.data(), covered.data(), reinterpret_cast<bool*>(open.data()), 2);
      for (int64_t i = 0; i < count; ++i) CHECK(open[size_t(i / 256)] || in_balls[size_t(i)] >= 1);
    }
}

static void discrepancy_cases() {
  where = "mmd";
  for (int64_t width : {1, 33, 70})
    for (int64_t count : {1, 2, 37})
      for (double size : {1e-30, 1.0, 1e6}) {
        const std::vector<float> values = noise<float>(count * width, -size, size), others = noise<float>(width, -size, size);
        const Rows real{values.data(), count, width, false}, fake{others.data(), 1, width, false};
        const std::vector<double> centre(size_t(width), 0.0);
        const double scale = 1 / (double(width) * size * size);
        double sums[3];
        mmd_sums(real, fake, centre.data(), Discrepancy::poly3, scale, sums, 2);
        double across = 0;
        for (int64_t i = 0; i < count; ++i) {
          double dot = 0;
          for (int64_t k = 0; k < width; ++k) dot += double(values[size_t(i * width + k)]) * double(others[size_t(k)]);
          across += std::pow(scale * dot + 1, 3);
        }
        CHECK(std::fabs(sums[2] - across) < 1e-7 * double(count) && sums[1] == 0);
        mmd_sums(real, fake, centre.data(), Discrepancy::gauss, scale, sums, 1);
        CHECK(sums[2] >= 0 && sums[2] <= double(count));
      }
}

static void copy_cases() {
  where = "copies";
  for (int64_t height : {1, 3, 9})
    for (int64_t width : {1, 17, 35}) {
      const std::vector<float> x = noise<float>(4 * height * width, -1, 1);
      const ImagePairs same{x.data(), x.data(), 2, 2, height, width, false};
      double found[2];
      tile_l2(same, 4, found, 2);
      CHECK(found[0] == 0 && found[1] == 0);
      max_ncc(same, height < 3 || width < 3 ? 0 : 2, found, 2);  // a shift stays below both sides
      CHECK(height * width < 2 || (std::fabs(found[0] - 1) < 1e-9 && std::fabs(found[1] - 1) < 1e-9));
    }
  tile_l2({nullptr, nullptr, 0, 1, 4, 4, false}, 2, nullptr, 1);
  max_ncc({nullptr, nullptr, 0, 1, 4, 4, false}, 1, nullptr, 1);
}

static void sampler_cases() {
  where = "sampler";
  const int64_t far = std::numeric_limits<int64_t>::max() - 70000;
  for (int64_t count : {0, 1, 3, 17, 255, 40001})
    for (int64_t offset : {int64_t(0), int64_t(1), int64_t(7), far}) {
      const NoiseSource source{std::numeric_limits<int64_t>::max(), 5, offset};
      std::vector<float> z(size_t(count), 9.0f), u(z), latents(z);
      std::vector<uint32_t> words(size_t(count), 0u);
      philox_cpu(Noise::normal, source, count, z.data(), 2);
      philox_cpu(Noise::uniform, source, count, u.data(), 2);
      philox_cpu(Noise::words, source, count, words.data(), 2);
      const std::vector<float> mean = noise<float>(count, -1, 1), log_variance(size_t(count), 0.0f);
      reparameterise_cpu(mean.data(), log_variance.data(), source, count, latents.data(), 2);
      for (int64_t i = 0; i < count; ++i) {
        CHECK(std::fabs(z[size_t(i)]) < 6.8f && u[size_t(i)] >= 0 && u[size_t(i)] < 1);
        CHECK(std::fabs(latents[size_t(i)] - (mean[size_t(i)] + z[size_t(i)])) < 1e-5f);
      }
      const std::vector<float> wild = {-200, 200, kLargest, -kLargest, float(kInfinity), std::nanf("")};
      std::vector<float> zeros(wild.size(), 0.0f), spread(wild.size());
      reparameterise_cpu(zeros.data(), wild.data(), source, int64_t(wild.size()), spread.data(), 1);

      const std::vector<float> table = {1, -0.5f, 0.9f, 0.1f, 0.2f, 0.3f, 1, -0.05f};
      const int64_t row = 0;
      for (Half half : {Half::none, Half::ieee, Half::brain})
        for (bool quantise : {false, true})
          for (bool guided : {false, true}) {
            std::vector<float> x = noise<float>(count, -1, 1), memory = x, next(x), kept(x), told(x), again(x);
            memory.reserve(size_t(count) + 1);  // not null when empty
            if (count > 2) x[0] = kLargest, x[1] = std::nanf(""), x[2] = float(kInfinity);
            std::vector<uint16_t> output(size_t(count * (half == Half::none ? 2 : 1)), 0x3c00);
            std::vector<uint8_t> levels(size_t(count), 0);
            int32_t bad = 0;
            SamplerSpec spec{};
            spec.count = count, spec.half = half, spec.guidance = guided ? 7.5f : 1.0f, spec.lo = -1, spec.hi = 1;
            spec.rows = 1, spec.seed = 3, spec.offset = offset, spec.keep = Keep::clean, spec.quantise = quantise;
            spec.from = -1, spec.scale = 127.5f, spec.input_scale = 0.25f;
            const SamplerBuffers buffers{x.data(),      output.data(), guided ? output.data() : nullptr,
                                         memory.data(), table.data(),  &row,
                                         quantise ? static_cast<void*>(levels.data()) : next.data(),
                                         kept.data(),   quantise ? &bad : nullptr,
                                         quantise ? nullptr : told.data(), quantise ? nullptr : again.data()};
            sampler_step_cpu(spec, buffers, 2);
            CHECK(!quantise || (bad == 1) == (count > 2));
            for (int64_t i = 3; i < count && !quantise; ++i)
              CHECK(told[size_t(i)] == 0.25f * next[size_t(i)] && again[size_t(i)] == told[size_t(i)]);
          }
    }
}

// The gradient is the slope of the values, from one pixel to a window as large as the image; threads change no bit.
template <typename T>
static void ssim_gradient_case(int64_t height, int64_t width, const std::vector<double>& taps, bool reflect) {
  SsimSpec s{};
  s.planes = 2, s.depth = 1, s.height = height, s.width = width, s.pixel = Pixel::f32;
  s.size = int64_t(taps.size()), s.depth_size = 1, s.taps = taps.data(), s.reflect = reflect;
  s.c1 = 6.5, s.c2 = 58.5, s.covariance = 1, s.guard = 1e6;
  const int64_t count = 2 * height * width;
  std::vector<T> x(size_t(count), 0), y = x, grad_x = x, grad_y = x, again = x;
  for (int64_t i = 0; i < count; ++i) x[size_t(i)] = T(i * 37 % 101), y[size_t(i)] = T(i * 53 % 97);
  const double upstream[4] = {1, -2, 0.5, 3};
  ssim_gradient_cpu(x.data(), y.data(), sizeof(T) == 8, s, upstream, grad_x.data(), grad_y.data(), 1);
  ssim_gradient_cpu(x.data(), y.data(), sizeof(T) == 8, s, upstream, again.data(), nullptr, 3);
  CHECK(again == grad_x);
  ssim_gradient_cpu(x.data(), y.data(), sizeof(T) == 8, s, upstream, nullptr, again.data(), 2);
  CHECK(again == grad_y);
  for (const T g : grad_x) CHECK(std::isfinite(double(g)));
}

static void ssim_gradient_cases() {
  where = "ssim gradient";
  const std::vector<double> one{1}, five(5, 0.2), most(63, 1.0 / 63);
  for (int64_t width : {5, 7, 8, 9, 16, 17, 33}) {
    ssim_gradient_case<float>(6, width, five, false);
    ssim_gradient_case<double>(5, width, five, true);
  }
  ssim_gradient_case<double>(1, 1, one, false);
  ssim_gradient_case<float>(3, 3, five, true);
  ssim_gradient_case<double>(63, 64, most, false);
  ssim_gradient_case<float>(32, 32, most, true);
  ssim_gradient_case<float>(100, 90, five, true);  // enough work for a team
}

static void radiomics_cases() {
  where = "radiomics";
  for (int64_t height : {1, 2, 5, 33})
    for (int64_t width : {1, 3, 16, 67})
      for (int64_t levels : {1, 2, 32, 256})
        for (bool merged : {false, true}) {
          RadiomicsSpec spec{};
          spec.planes = 2, spec.height = height, spec.width = width, spec.channels = 1, spec.grey = Grey::f32;
          spec.lo = -1, spec.multiply = double(levels), spec.divide = 2, spec.levels = levels, spec.merged = merged;
          spec.families = 63;
          const int64_t pixels = height * width;
          std::vector<float> images = noise<float>(2 * pixels, -1, 1);
          images[0] = kLargest, images[size_t(pixels - 1)] = -kLargest;
          std::vector<uint8_t> mask(size_t(2 * pixels), 0);
          for (int64_t i = 0; i < pixels; ++i) mask[size_t(i)] = uniform() < 0.5 || i == 0;
          std::vector<double> values(size_t(2 * spec.features()), 0.0);
          int64_t states[2] = {9, 9};
          radiomics_cpu(images.data(), nullptr, spec, values.data(), states, 2);
          CHECK(states[0] == 0 && states[1] == 0);
          radiomics_cpu(images.data(), mask.data(), spec, values.data(), states, 1);
          CHECK(states[0] == 0 && states[1] == int64_t(RegionState::empty));
          images[0] = std::nanf("");
          radiomics_cpu(images.data(), nullptr, spec, values.data(), states, 1);
          CHECK(states[0] == int64_t(RegionState::not_finite));
          const std::vector<uint8_t> bytes(size_t(2 * pixels), 255);
          spec.grey = Grey::u8, spec.families = kZones | kRuns;
          radiomics_cpu(bytes.data(), nullptr, spec, values.data(), states, 2);
          CHECK(states[0] == 0);
          const std::vector<int16_t> shorts = noise<int16_t>(2 * pixels, -32768, 32767);
          spec.grey = Grey::i16, spec.lo = -32768, spec.divide = 65536, spec.families = 63;
          radiomics_cpu(shorts.data(), nullptr, spec, values.data(), states, 2);
          CHECK(states[0] == 0 && states[1] == 0);
        }
  RadiomicsSpec none{};
  none.height = none.width = none.channels = none.levels = 1, none.families = 63, none.multiply = none.divide = 1;
  radiomics_cpu(nullptr, nullptr, none, nullptr, nullptr, 2);
}

int main() {
  try {
    std::printf("%s\n", isa_name(isa()));
    matrix_kernels();
  } catch (const std::runtime_error& error) {
    std::printf("%s\n", error.what());
    return 77;  // this instruction set or matrix unit is not here
  }
  ssim_cases();
  ssim_gradient_cases();
  halve_cases();
  neighbour_cases();
  candidate_cases();
  discrepancy_cases();
  copy_cases();
  sampler_cases();
  radiomics_cases();
  std::printf("%d failures\n", failures);
  return failures != 0;
}
