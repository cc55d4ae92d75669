// C entry points of the emulated radiomics, for ctypes.
#include "../../../csrc/cuda/radiomics.cu"

using namespace medtrust;

// shape: planes, height, width, channels
static RadiomicsSpec spec_of(const int64_t* shape, int64_t grey, const double* binning, int64_t levels, int merged,
                             int64_t families) {
  return {shape[0],   shape[1],   shape[2], shape[3],    static_cast<Grey>(grey), binning[0],
          binning[1], binning[2], levels,   merged != 0, families};
}

extern "C" int64_t emulated_radiomics_scratch(const int64_t* shape, int64_t grey, const double* binning, int64_t levels,
                                              int merged, int64_t families) {
  return radiomics_cuda_scratch(spec_of(shape, grey, binning, levels, merged, families));
}

extern "C" void emulated_radiomics(const void* images, const uint8_t* mask, const int64_t* shape, int64_t grey,
                                   const double* binning, int64_t levels, int merged, int64_t families, void* scratch,
                                   double* values, int64_t* states) {
  radiomics_cuda(images, mask, spec_of(shape, grey, binning, levels, merged, families), scratch, values, states,
                 nullptr);
}
