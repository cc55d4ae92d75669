// One tile of the SSIM map. Compiled once per instruction set; MEDTRUST_ISA names the namespace and MEDTRUST_BYTES the
// vector width. Everything but ssim_tile is in an unnamed namespace: a function shared between the translation
// units could be linked from the widest one and then crash older processors.
#include "ssim_filter.h"
#include "ssim_uniform.h"

namespace medtrust {
namespace {

// The formula's constants, in units and as R.
template <typename R>
struct Formula {
  R square, c1, c2, norm, twice, mx, my;

  Formula(const SsimSpec& spec, const Taps<R>& taps, double px, double py, double unit)
      : square(taps.square),
        c1(R(spec.c1 * unit * unit)),
        c2(R(spec.c2 * unit * unit)),
        norm(R(spec.covariance)),
        twice(2 * norm),
        mx(R(px * unit)),
        my(R(py * unit)) {}
};

// The two fractions of some pixels before the division: the map is 1 - lost / whole, the contrast 1 - blurred / whole.
template <typename R>
struct Fractions {
  vec<R> whole, lost, blurred;

  Fractions(const Formula<R>& f, vec<R> x, vec<R> y, vec<R> both, vec<R> cross) {
    const vec<R> a = f.square * x, b = f.square * y, mean_x = a + f.mx, mean_y = b + f.my;
    const vec<R> luminance = 2 * mean_x * mean_y + f.c1, means = mean_x * mean_x + (mean_y * mean_y + f.c1);
    const vec<R> shared = f.twice * (f.square * cross - a * b) + f.c2;
    const vec<R> variances = f.norm * (f.square * both - (a * a + b * b)) + f.c2;
    whole = means * variances;
    lost = whole - luminance * shared;  // 0 for identical images, whatever the division does
    blurred = means * (variances - shared);
  }
};

// The map's values of some columns and kGroup rows, added to the sums of each row.
template <typename R>
inline void add_band(const Scratch<R>& s, const Formula<R>& formula, int64_t columns, double* ssim_sums,
                     double* cs_sums) {
  constexpr int64_t L = lanes<R>, D = lanes<double>;
  for (int64_t part = 0; part < kGroup; part += L) {
    const auto fractions = [&](int64_t c) {
      return Fractions<R>(formula, load(s.done[0][c] + part), load(s.done[1][c] + part), load(s.done[2][c] + part),
                          load(s.done[3][c] + part));
    };
    vec<R> ssim{}, cs{};
    int64_t c = 0;
    for (; c + 2 <= columns; c += 2) {  // one division serves two columns
      const Fractions<R> p = fractions(c), q = fractions(c + 1);
      const vec<R> inverse = 1 / (p.whole * q.whole), of_p = inverse * q.whole, of_q = inverse * p.whole;
      cs += (1 - p.blurred * of_p) + (1 - q.blurred * of_q);
      ssim += (1 - p.lost * of_p) + (1 - q.lost * of_q);
    }
    for (; c < columns; ++c) {
      const Fractions<R> p = fractions(c);
      const vec<R> inverse = 1 / p.whole;
      cs += 1 - p.blurred * inverse;
      ssim += 1 - p.lost * inverse;
    }
    R rows[2][L];
    store(rows[0], ssim);
    store(rows[1], cs);
    for (int64_t i = 0; i < L; i += D) {
      store(ssim_sums + part + i, load(ssim_sums + part + i) + load_double(rows[0] + i));
      store(cs_sums + part + i, load(cs_sums + part + i) + load_double(rows[1] + i));
    }
  }
}

// False where a pixel strays too far from the pivots for R.
template <int K, typename R, typename T>
bool averaged(const Pair<T>& pair, Scratch<R>& s, SsimSums* sums) {
  const Taps<R> taps(pair.spec);
  const Formula<R> formula(pair.spec, taps, pair.px, pair.py, pair.unit);
  const double limit = pair.spec.guard * pair.unit * pair.unit;
  *sums = SsimSums{0, 0};
  vec<R> far{};
  for (int64_t row = 0; row < pair.tile.rows; row += kGroup) {
    double ssim[kGroup] = {}, cs[kGroup] = {};
    filtered<K, R>(pair, taps, row, s, far, [&](int64_t columns) {
      add_band<R>(s, formula, columns, ssim, cs);
    });
    if (sizeof(R) < sizeof(double))
      for (int64_t i = 0; i < lanes<R>; ++i)
        if (double(far[i]) > limit) return false;
    for (int64_t r = 0; r < least(kGroup, pair.tile.rows - row); ++r) {
      sums->ssim += ssim[r];
      sums->cs += cs[r];
    }
  }
  return true;
}

template <typename R, typename T>
bool attempt(const Pair<T>& pair, double* scratch, SsimSums* sums) {
  static_assert(sizeof(Scratch<R>) <= kScratchBytes, "scratch is too small");
  Scratch<R>& s = *reinterpret_cast<Scratch<R>*>(scratch);
  return pair.spec.size == 11  ? averaged<11, R>(pair, s, sums)
         : pair.spec.size == 7 ? averaged<7, R>(pair, s, sums)
                               : averaged<0, R>(pair, s, sums);
}

template <typename T>
SsimSums typed_tile(const T* x, const T* y, const SsimSpec& spec, const SsimTile& tile, double* scratch) {
  const int64_t offset = tile.plane * spec.depth * spec.height * spec.width;
  const Source<T> sx{x + offset, spec.depth, spec.height, spec.width};
  const Source<T> sy{y + offset, spec.depth, spec.height, spec.width};
  const int64_t border = spec.reflect ? spec.size / 2 : 0;
  const int64_t depth_border = spec.reflect ? spec.depth_size / 2 : 0;
  SsimSums sums{0, 0};
  if constexpr (sizeof(T) == 1) {
    if (countable(spec)) return counted_tile(sx, sy, spec, tile, scratch);
  }
  const Window w{tile.depth - depth_border, tile.row - border, tile.rows + spec.size - 1, tile.col - border,
                 tile.cols + spec.size - 1};
  const Pair<T> pair{sx, sy, spec, tile, w, pivot(sx, w), pivot(sy, w), unit_of(spec)};
  if (!attempt<float>(pair, scratch, &sums)) attempt<double>(pair, scratch, &sums);
  return sums;
}

}  // namespace

namespace MEDTRUST_ISA {

SsimSums ssim_tile(const void* x, const void* y, const SsimSpec& spec, const SsimTile& tile, double* scratch) {
  switch (spec.pixel) {
    case Pixel::u8:
      return typed_tile(static_cast<const uint8_t*>(x), static_cast<const uint8_t*>(y), spec, tile, scratch);
    case Pixel::u16:
      return typed_tile(static_cast<const uint16_t*>(x), static_cast<const uint16_t*>(y), spec, tile, scratch);
    default:
      return typed_tile(static_cast<const float*>(x), static_cast<const float*>(y), spec, tile, scratch);
  }
}

}  // namespace MEDTRUST_ISA
}  // namespace medtrust
