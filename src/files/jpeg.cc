#include "files/jpeg.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <vector>

// After <cstdio>, which it needs and does not include.
#include <jpeglib.h>

#include "files/error.h"

namespace kinefit {
namespace {

constexpr int kLargestSide = 16384;

// libjpeg reports errors through callbacks that must not return, and C code cannot be unwound: they
// jump back to the caller, which throws.
struct ErrorHandler {
  jpeg_error_mgr manager;  // first, so that libjpeg's pointer to it is also one to this struct
  jmp_buf back;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void JumpBack(j_common_ptr codec) {
  auto* handler = reinterpret_cast<ErrorHandler*>(codec->err);
  handler->manager.format_message(codec, handler->message);
  longjmp(handler->back, 1);
}

// Level -1 is a warning: the data is damaged but libjpeg would go on.
void RefuseWarnings(j_common_ptr codec, int level) {
  if (level < 0) JumpBack(codec);
}

void Install(ErrorHandler* handler, jpeg_error_mgr** place) {
  *place = jpeg_std_error(&handler->manager);
  handler->manager.error_exit = JumpBack;
  handler->manager.emit_message = RefuseWarnings;
  handler->message[0] = '\0';
}

}  // namespace

struct JpegEncoder::State {
  jpeg_compress_struct codec = {};
  ErrorHandler errors = {};
  unsigned char* bytes = nullptr;
  unsigned long size = 0;  // NOLINT(google-runtime-int): libjpeg's type

  // False with errors.message set if libjpeg failed. No object with a destructor lives here: the
  // jump would skip it.
  bool Run(const uint8_t* rgb, int width, int height, size_t stride, const JpegOptions& options) {
    if (setjmp(errors.back) != 0) {
      jpeg_abort_compress(&codec);
      return false;
    }
    jpeg_mem_dest(&codec, &bytes, &size);
    codec.image_width = static_cast<JDIMENSION>(width);
    codec.image_height = static_cast<JDIMENSION>(height);
    codec.input_components = 3;
    codec.in_color_space = JCS_RGB;
    jpeg_set_defaults(&codec);
    jpeg_set_quality(&codec, options.quality, TRUE);
    codec.optimize_coding = TRUE;
    codec.dct_method = JDCT_ISLOW;
    codec.comp_info[0].h_samp_factor = options.halve_chroma ? 2 : 1;
    codec.comp_info[0].v_samp_factor = options.halve_chroma ? 2 : 1;
    jpeg_start_compress(&codec, TRUE);
    while (codec.next_scanline < codec.image_height) {
      JSAMPROW row = const_cast<uint8_t*>(rgb + codec.next_scanline * stride);
      jpeg_write_scanlines(&codec, &row, 1);
    }
    jpeg_finish_compress(&codec);
    return true;
  }
};

JpegEncoder::JpegEncoder() : state_(std::make_unique<State>()) {
  Install(&state_->errors, &state_->codec.err);
  if (setjmp(state_->errors.back) != 0) throw std::bad_alloc();
  jpeg_create_compress(&state_->codec);
}

JpegEncoder::~JpegEncoder() {
  jpeg_destroy_compress(&state_->codec);
  std::free(state_->bytes);
}

std::string JpegEncoder::Encode(const uint8_t* rgb, int width, int height, size_t stride,
                                const JpegOptions& options) {
  if (width < 1 || height < 1 || width > kLargestSide || height > kLargestSide) {
    throw Error("a picture of " + std::to_string(width) + "x" + std::to_string(height) +
                " pixels cannot be a JPEG (1 to " + std::to_string(kLargestSide) + " a side)");
  }
  if (options.quality < 1 || options.quality > 100) {
    throw Error("JPEG quality " + std::to_string(options.quality) + " is not in 1 to 100");
  }
  State& s = *state_;
  // libjpeg allocates this buffer, and forgets the one before when it needs a larger one.
  std::free(s.bytes);
  s.bytes = nullptr;
  s.size = 0;
  if (!s.Run(rgb, width, height, stride, options)) {
    throw Error(std::string("a picture cannot be written as JPEG: ") + s.errors.message);
  }
  return {reinterpret_cast<const char*>(s.bytes), s.size};
}

struct JpegDecoder::State {
  jpeg_decompress_struct codec = {};
  ErrorHandler errors = {};

  // As in the encoder. `refusal` is set where the picture is none that was expected.
  bool Run(const uint8_t* data, size_t size, int width, int height, uint8_t* rgb, size_t stride,
           const char** refusal) {
    if (setjmp(errors.back) != 0) {
      jpeg_abort_decompress(&codec);
      return false;
    }
    jpeg_mem_src(&codec, data, size);
    jpeg_read_header(&codec, TRUE);
    // The other modes make small files that take very long, and nobody writes them here.
    if (codec.progressive_mode || codec.arith_code || codec.num_components != 3 ||
        codec.jpeg_color_space != JCS_YCbCr) {
      *refusal = "it is no baseline colour picture";
    } else if (static_cast<int>(codec.image_width) != width ||
               static_cast<int>(codec.image_height) != height) {
      *refusal = "it has another size";
    }
    if (*refusal != nullptr) {
      jpeg_abort_decompress(&codec);
      return false;
    }
    codec.out_color_space = JCS_RGB;
    codec.dct_method = JDCT_ISLOW;
    jpeg_start_decompress(&codec);
    while (codec.output_scanline < codec.output_height) {
      JSAMPROW rows[8];
      const JDIMENSION left = codec.output_height - codec.output_scanline;
      const JDIMENSION count = left < 8 ? left : 8;
      for (JDIMENSION i = 0; i < count; ++i) rows[i] = rgb + (codec.output_scanline + i) * stride;
      jpeg_read_scanlines(&codec, rows, count);
    }
    jpeg_finish_decompress(&codec);
    return true;
  }
};

JpegDecoder::JpegDecoder() : state_(std::make_unique<State>()) {
  Install(&state_->errors, &state_->codec.err);
  if (setjmp(state_->errors.back) != 0) throw std::bad_alloc();
  jpeg_create_decompress(&state_->codec);
}

JpegDecoder::~JpegDecoder() { jpeg_destroy_decompress(&state_->codec); }

void JpegDecoder::Decode(std::string_view jpeg, int width, int height, uint8_t* rgb,
                         size_t stride) {
  const char* refusal = nullptr;
  const auto* data = reinterpret_cast<const uint8_t*>(jpeg.data());
  if (jpeg.empty()) refusal = "it is empty";
  if (refusal == nullptr && state_->Run(data, jpeg.size(), width, height, rgb, stride, &refusal)) {
    return;
  }
  throw Error(std::string("a JPEG cannot be decoded: ") +
              (refusal != nullptr ? refusal : state_->errors.message));
}

}  // namespace kinefit
