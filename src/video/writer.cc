#include "video/writer.h"

#include <string_view>

#include "files/error.h"
#include "files/publish.h"
#include "video/ffmpeg_handles.h"

namespace kinefit {
namespace {

AVRational FrameRate(double fps) {
  AVRational rate = av_d2q(fps, 1001000);
  if (rate.num <= 0 || rate.den <= 0) rate = {25, 1};
  return rate;
}

}  // namespace

struct VideoWriter::State {
  std::string path;
  OutputPtr output;
  CodecPtr codec;
  ScalerPtr scaler;
  FramePtr picture{Allocated(av_frame_alloc())};
  PacketPtr packet{Allocated(av_packet_alloc())};
  AVStream* stream = nullptr;
  int64_t count = 0;
  bool finished = false;

  ~State();
  void OpenEncoder(int width, int height, double fps, int crf, int keyframe_interval);
  void OpenOutput();
  void Check(int code, const char* doing) const;
  void Encode(const AVFrame* frame);
  std::string TakeBytes();
};

VideoWriter::State::~State() {
  if (output != nullptr && output->pb != nullptr) TakeBytes();
}

void VideoWriter::State::Check(int code, const char* doing) const {
  if (code >= 0) return;
  throw Error(std::string(doing) + " failed: " + FfmpegMessage(code), path);
}

void VideoWriter::State::OpenEncoder(int width, int height, double fps, int crf,
                                     int keyframe_interval) {
  const AVCodec* encoder = avcodec_find_encoder_by_name("libx264");
  if (encoder == nullptr) {
    throw Error("this FFmpeg has no libx264, which writing videos needs", path,
                "install libavcodec-extra or Debian's libavcodec59");
  }
  codec.reset(Allocated(avcodec_alloc_context3(encoder)));
  codec->width = width;
  codec->height = height;
  codec->pix_fmt = AV_PIX_FMT_YUV420P;
  codec->framerate = FrameRate(fps);
  codec->time_base = av_inv_q(codec->framerate);
  codec->gop_size = keyframe_interval;
  codec->thread_count = 1;
  codec->colorspace = AVCOL_SPC_SMPTE170M;  // BT.601, what swscale converts with by default
  codec->color_range = AVCOL_RANGE_MPEG;
  codec->flags |= AV_CODEC_FLAG_BITEXACT | AV_CODEC_FLAG_GLOBAL_HEADER;
  Check(av_opt_set(codec->priv_data, "preset", "veryfast", 0), "setting up the H.264 encoder");
  Check(av_opt_set_double(codec->priv_data, "crf", crf, 0), "setting up the H.264 encoder");
  // Some of x264's vector code depends on the processor; the file must not.
  Check(av_opt_set(codec->priv_data, "x264-params", "cpu-independent=1", 0),
        "setting up the H.264 encoder");
  Check(avcodec_open2(codec.get(), encoder, nullptr), "opening the H.264 encoder");
}

void VideoWriter::State::OpenOutput() {
  AVFormatContext* context = nullptr;
  Check(avformat_alloc_output_context2(&context, nullptr, "mp4", nullptr), "opening the output");
  output.reset(context);
  output->flags |= AVFMT_FLAG_BITEXACT;
  stream = avformat_new_stream(context, nullptr);
  Check(stream == nullptr ? AVERROR(ENOMEM) : 0, "opening the output");
  stream->time_base = codec->time_base;
  stream->avg_frame_rate = codec->framerate;
  Check(avcodec_parameters_from_context(stream->codecpar, codec.get()), "opening the output");
  Check(avio_open_dyn_buf(&output->pb), "opening the output");
  Check(avformat_write_header(context, nullptr), "writing the video's header");
}

// Sends a frame (null: the end) and moves the packets that are ready to the file.
void VideoWriter::State::Encode(const AVFrame* frame) {
  Check(avcodec_send_frame(codec.get(), frame), "encoding");
  for (;;) {
    const int code = avcodec_receive_packet(codec.get(), packet.get());
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
    Check(code, "encoding");
    packet->duration = 1;
    av_packet_rescale_ts(packet.get(), codec->time_base, stream->time_base);
    packet->stream_index = stream->index;
    Check(av_interleaved_write_frame(output.get(), packet.get()), "writing a video packet");
  }
}

// The finished file; ends writing to it.
std::string VideoWriter::State::TakeBytes() {
  uint8_t* data = nullptr;
  const int size = avio_close_dyn_buf(output->pb, &data);
  output->pb = nullptr;
  std::string bytes;
  if (data != nullptr && size > 0) bytes.assign(reinterpret_cast<const char*>(data), size);
  av_free(data);
  return bytes;
}

VideoWriter::VideoWriter(const std::string& path, int width, int height, double fps, int crf,
                         int keyframe_interval)
    : state_(std::make_unique<State>()) {
  SilenceFfmpeg();
  state_->path = path;
  if (width <= 0 || height <= 0 || width % 2 != 0 || height % 2 != 0) {
    throw Error("H.264 video needs an even picture size, not " + std::to_string(width) + "x" +
                    std::to_string(height),
                path);
  }
  if (!(fps > 0) || fps > 1000 || crf < 0 || crf > 51 || keyframe_interval < 1) {
    throw Error("fps must be in (0, 1000], crf in [0, 51] and keyframe_interval at least 1", path);
  }
  state_->OpenEncoder(width, height, fps, crf, keyframe_interval);
  state_->OpenOutput();
  state_->scaler.reset(
      Allocated(sws_getContext(width, height, AV_PIX_FMT_RGB24, width, height, AV_PIX_FMT_YUV420P,
                               SWS_BILINEAR, nullptr, nullptr, nullptr)));
  state_->picture->format = AV_PIX_FMT_YUV420P;
  state_->picture->width = width;
  state_->picture->height = height;
  state_->Check(av_frame_get_buffer(state_->picture.get(), 0), "allocating a picture");
}

VideoWriter::~VideoWriter() = default;

void VideoWriter::Write(const cv::Mat& frame) {
  AVFrame* picture = state_->picture.get();
  if (state_->finished) throw Error("a frame was written after Finish()", state_->path);
  if (frame.type() != CV_8UC3 || frame.cols != picture->width || frame.rows != picture->height) {
    throw Error("a frame to write must be 8-bit RGB of " + std::to_string(picture->width) + "x" +
                    std::to_string(picture->height) + " pixels",
                state_->path);
  }
  state_->Check(av_frame_make_writable(picture), "allocating a picture");
  const uint8_t* planes[4] = {frame.data, nullptr, nullptr, nullptr};
  const int strides[4] = {static_cast<int>(frame.step), 0, 0, 0};
  const int rows = sws_scale(state_->scaler.get(), planes, strides, 0, frame.rows, picture->data,
                             picture->linesize);
  state_->Check(rows == frame.rows ? 0 : AVERROR_EXTERNAL, "converting a picture");
  picture->pts = state_->count++;
  state_->Encode(picture);
}

void VideoWriter::Finish() {
  if (state_->finished) return;
  if (state_->count == 0) throw Error("a video needs at least one frame", state_->path);
  state_->finished = true;
  state_->Encode(nullptr);
  state_->Check(av_write_trailer(state_->output.get()), "writing the video's index");
  PublishFile(state_->path, state_->TakeBytes());
}

}  // namespace kinefit
