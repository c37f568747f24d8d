#pragma once

// Owners for FFmpeg objects, shared by reader.cc and writer.cc alone: no other file of the project
// includes FFmpeg.

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <libavutil/imgutils.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>
}

#include <memory>
#include <new>
#include <string>

namespace kinefit {

struct FrameDeleter {
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
};
struct PacketDeleter {
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
};
struct CodecDeleter {
  void operator()(AVCodecContext* codec) const { avcodec_free_context(&codec); }
};
struct ParserDeleter {
  void operator()(AVCodecParserContext* parser) const { av_parser_close(parser); }
};
struct ScalerDeleter {
  void operator()(SwsContext* scaler) const { sws_freeContext(scaler); }
};
struct InputDeleter {
  void operator()(AVFormatContext* input) const { avformat_close_input(&input); }
};
struct OutputDeleter {
  void operator()(AVFormatContext* output) const { avformat_free_context(output); }
};
struct FileDeleter {
  void operator()(AVIOContext* file) const { avio_closep(&file); }
};

using FramePtr = std::unique_ptr<AVFrame, FrameDeleter>;
using PacketPtr = std::unique_ptr<AVPacket, PacketDeleter>;
using CodecPtr = std::unique_ptr<AVCodecContext, CodecDeleter>;
using ParserPtr = std::unique_ptr<AVCodecParserContext, ParserDeleter>;
using ScalerPtr = std::unique_ptr<SwsContext, ScalerDeleter>;
using InputPtr = std::unique_ptr<AVFormatContext, InputDeleter>;
using OutputPtr = std::unique_ptr<AVFormatContext, OutputDeleter>;
using FilePtr = std::unique_ptr<AVIOContext, FileDeleter>;

// What FFmpeg says about an error code.
inline std::string FfmpegMessage(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(code, text, sizeof text);
  return text;
}

// What an FFmpeg function allocated, which is null where memory has run out.
template <typename T>
T* Allocated(T* object) {
  if (object == nullptr) throw std::bad_alloc();
  return object;
}

// Every problem FFmpeg logs reaches the caller as an Error; its own lines would tear the progress
// display, so they are switched off, once for the process.
inline void SilenceFfmpeg() {
  static const bool silenced = [] {
    av_log_set_level(AV_LOG_QUIET);
    return true;
  }();
  (void)silenced;
}

}  // namespace kinefit
