#include "config/config.h"

namespace kinefit {

PathwayConfig DefaultRgbPathway() {
  PathwayConfig pathway;
  pathway.stage_blocks = {3, 4, 6, 3};
  pathway.inflate = {0, 0, 1, 1};
  pathway.spatial_strides = {1, 2, 2, 2};
  pathway.temporal_strides = {1, 1, 1, 1};
  pathway.lateral_activate = {0, 0, 1, 1};
  return pathway;
}

PathwayConfig DefaultPosePathway() {
  PathwayConfig pathway;
  pathway.in_channels = 17;
  pathway.base_channels = 32;
  pathway.stage_blocks = {4, 6, 3};
  pathway.inflate = {0, 1, 1};
  pathway.spatial_strides = {2, 2, 2};
  pathway.temporal_strides = {1, 1, 1};
  pathway.conv1_stride_s = 1;
  pathway.pool1_stride_s = 1;
  pathway.lateral_activate = {0, 1, 1};
  return pathway;
}

ModelConfig::ModelConfig() : rgb(DefaultRgbPathway()), pose(DefaultPosePathway()) {}

}  // namespace kinefit
