// The gradient of SSIM: each plane is filtered, differentiated and filtered back, row by row.
//
// A filtered row depends on the images alone and a row of the gradient on filtered rows alone, so that no split into
// threads or batches can change a bit. A mirrored border is a longer row whose ends are folded back onto the image.
#include "../ssim_gradient.h"

#include <algorithm>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "../isa.h"

namespace medtrust {
namespace {

const SsimGradientKernels& kernels() {
#ifdef MEDTRUST_X86
  switch (isa()) {
    case Isa::avx512: return avx512::ssim_gradient_kernels;
    case Isa::avx2: return avx2::ssim_gradient_kernels;
    default: break;
  }
#endif
  return scalar::ssim_gradient_kernels;
}

// Pixel of the image that a place in the mirrored row shows; place 0 lies `pad` before the image.
int64_t mirrored(int64_t place, int64_t pad, int64_t length) {
  const int64_t i = place < pad ? pad - place : place - pad;
  return i < length ? i : 2 * (length - 1) - i;
}

class Plane {
 public:
  Plane(const SsimSpec& spec, bool is_double, int threads)
      : spec_(spec), run_(kernels()), is_double_(is_double), threads_(threads), pad_(spec.reflect ? spec.size / 2 : 0),
        height_(spec.out_height()), width_(spec.out_width()), backwards_(spec.taps, spec.taps + spec.size),
        maps_(size_t(kGradientMaps * height_ * spec.width)) {
    std::reverse(backwards_.begin(), backwards_.end());
  }

  void differentiate(const char* x, const char* y, double of_ssim, double of_cs, char* grad_x, char* grad_y) {
    const double count = double(height_) * double(width_);
    const auto first = [this](const char* p) {
      return is_double_ ? *reinterpret_cast<const double*>(p) : double(*reinterpret_cast<const float*>(p));
    };
    const SsimSlope slope{spec_.c1, spec_.c2, spec_.covariance, first(x), first(y), of_ssim / count, of_cs / count};
#pragma omp parallel num_threads(threads_) if (threads_ > 1)
    {
      Lines lines(*this);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < height_; ++row) filter_row(x, y, slope, row, lines);
#pragma omp for schedule(static)
      for (int64_t row = 0; row < spec_.height; ++row) gradient_row(x, y, slope, row, grad_x, grad_y);
    }
  }

 private:
  // Memory of one thread: filtered lines of the padded width, slopes between zeros, and the lines filtered back.
  struct Lines {
    explicit Lines(const Plane& p)
        : padded(p.spec_.width + 2 * p.pad_), framed(p.width_ + 2 * (p.spec_.size - 1)),
          filtered(size_t(kGradientMaps * padded)), slopes(size_t(kGradientMaps * framed), 0.0), back(size_t(padded)) {}
    int64_t padded, framed;
    std::vector<double> filtered, slopes, back;
  };

  const char* row_of(const char* image, int64_t row) const {
    return image + row * spec_.width * (is_double_ ? 8 : 4);
  }

  void filter_row(const char* x, const char* y, const SsimSlope& slope, int64_t row, Lines& lines) {
    const void *x_rows[kMaxTaps], *y_rows[kMaxTaps];
    for (int64_t t = 0; t < spec_.size; ++t) {
      const int64_t from = mirrored(row + t, pad_, spec_.height);
      x_rows[t] = row_of(x, from), y_rows[t] = row_of(y, from);
    }
    double *filtered[kGradientMaps], *inner[kGradientMaps], *slopes[kGradientMaps];
    for (int m = 0; m < kGradientMaps; ++m) {
      filtered[m] = lines.filtered.data() + m * lines.padded, inner[m] = filtered[m] + pad_;
      slopes[m] = lines.slopes.data() + m * lines.framed + spec_.size - 1;
    }
    run_.down({x_rows, y_rows, is_double_, spec_.size, spec_.width}, spec_.taps, slope.pivot_x, slope.pivot_y, inner);
    for (int m = 0; m < kGradientMaps; ++m)
      for (int64_t i = 0; i < pad_; ++i) {
        filtered[m][i] = inner[m][mirrored(i, pad_, spec_.width)];
        const int64_t last = lines.padded - 1 - i;
        filtered[m][last] = inner[m][mirrored(last, pad_, spec_.width)];
      }
    run_.slopes(filtered, spec_.taps, spec_.size, width_, slope, slopes);
    for (int m = 0; m < kGradientMaps; ++m) {
      double* out = maps_.data() + (m * height_ + row) * spec_.width;
      if (pad_ == 0) {
        run_.across(slopes[m] - (spec_.size - 1), backwards_.data(), spec_.size, spec_.width, out);
        continue;
      }
      run_.across(slopes[m] - (spec_.size - 1), backwards_.data(), spec_.size, lines.padded, lines.back.data());
      std::copy_n(lines.back.data() + pad_, spec_.width, out);
      for (int64_t i = 0; i < pad_; ++i) {
        out[mirrored(i, pad_, spec_.width)] += lines.back[size_t(i)];
        const int64_t last = lines.padded - 1 - i;
        out[mirrored(last, pad_, spec_.width)] += lines.back[size_t(last)];
      }
    }
  }

  void gradient_row(const char* x, const char* y, const SsimSlope& slope, int64_t row, char* grad_x, char* grad_y) {
    int64_t indices[3 * kMaxTaps];  // filtered rows that saw this row, directly and in the mirrors
    double weights[3 * kMaxTaps];
    int64_t count = 0;
    const auto seen_at = [&](int64_t place) {
      for (int64_t t = 0; t < spec_.size; ++t)
        if (place - t >= 0 && place - t < height_) indices[count] = place - t, weights[count++] = spec_.taps[t];
    };
    seen_at(row + pad_);
    if (row > 0 && row <= pad_) seen_at(pad_ - row);
    const int64_t below = 2 * (spec_.height - 1) - row + pad_;
    if (row < spec_.height - 1 && below < spec_.height + 2 * pad_) seen_at(below);
    const double* maps[kGradientMaps];
    for (int m = 0; m < kGradientMaps; ++m) maps[m] = maps_.data() + m * height_ * spec_.width;
    const void *x_row = row_of(x, row), *y_row = row_of(y, row);
    const int64_t offset = row * spec_.width * (is_double_ ? 8 : 4);
    run_.gather(maps, indices, weights, count, spec_.width, {&x_row, &y_row, is_double_, 1, spec_.width}, slope.pivot_x,
                slope.pivot_y, grad_x == nullptr ? nullptr : grad_x + offset,
                grad_y == nullptr ? nullptr : grad_y + offset);
  }

  const SsimSpec& spec_;
  const SsimGradientKernels& run_;
  const bool is_double_;
  const int threads_;
  const int64_t pad_, height_, width_;
  std::vector<double> backwards_;
  std::vector<double> maps_;  // [4, out height, width]
};

}  // namespace

void ssim_gradient_cpu(const void* x, const void* y, bool is_double, const SsimSpec& spec, const double* upstream,
                       void* grad_x, void* grad_y, int threads) {
  if (spec.size < 1 || spec.size > kMaxTaps || spec.size % 2 == 0 || spec.depth != 1 || spec.out_height() < 1 ||
      spec.out_width() < 1 || (spec.reflect && spec.size / 2 >= std::min(spec.height, spec.width)))
    throw std::invalid_argument("ssim gradient: the window does not fit the image");
  const int64_t bytes = spec.height * spec.width * (is_double ? 8 : 4);
  if (threads < 1 || spec.height * spec.width * spec.planes < 1 << 13) threads = 1;
  const int teams = int(std::min<int64_t>(threads, spec.planes));  // planes in parallel, else the rows of each
#pragma omp parallel num_threads(teams) if (teams == threads && threads > 1)
  {
    Plane plane(spec, is_double, teams == threads ? 1 : threads);
#pragma omp for schedule(dynamic, 1)
    for (int64_t p = 0; p < spec.planes; ++p) {
      const auto at = [p, bytes](auto* base) {
        using C = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(base)>>, const char, char>;
        return base == nullptr ? nullptr : static_cast<C*>(base) + p * bytes;
      };
      plane.differentiate(at(x), at(y), upstream[p], upstream[spec.planes + p], at(grad_x), at(grad_y));
    }
  }
}

}  // namespace medtrust
