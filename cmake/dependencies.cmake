# Every library from outside, as one imported target each. What they are for: docs/dependencies.md.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# LibTorch. Debian's CMake package drags in unrelated requirements, so its libraries are named here;
# a LibTorch given by TORCH_DIR brings a package that works.
if(TORCH_DIR)
  list(APPEND CMAKE_PREFIX_PATH "${TORCH_DIR}")
  find_package(Torch REQUIRED)
  add_library(kinefit_torch INTERFACE)
  target_include_directories(kinefit_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  target_link_libraries(kinefit_torch INTERFACE ${TORCH_LIBRARIES})
else()
  find_library(TORCH_CPU_LIBRARY torch_cpu REQUIRED)
  find_library(C10_LIBRARY c10 REQUIRED)
  find_path(TORCH_INCLUDE ATen/ATen.h REQUIRED)
  add_library(kinefit_torch INTERFACE)
  target_include_directories(kinefit_torch SYSTEM INTERFACE
    ${TORCH_INCLUDE} ${TORCH_INCLUDE}/torch/csrc/api/include)
  target_link_libraries(kinefit_torch INTERFACE ${TORCH_CPU_LIBRARY} ${C10_LIBRARY})
endif()

pkg_check_modules(FFMPEG REQUIRED IMPORTED_TARGET libavformat libavcodec libavutil libswscale)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash)
pkg_check_modules(PNG REQUIRED IMPORTED_TARGET libpng)
pkg_check_modules(JPEG REQUIRED IMPORTED_TARGET libjpeg)
pkg_check_modules(ZLIB REQUIRED IMPORTED_TARGET zlib)

# OpenCV: core and imgproc only; its CMake package demands every module to be installed.
find_library(OPENCV_CORE opencv_core REQUIRED)
find_library(OPENCV_IMGPROC opencv_imgproc REQUIRED)
find_path(OPENCV_INCLUDE opencv2/core.hpp PATH_SUFFIXES opencv4 REQUIRED)
add_library(kinefit_opencv INTERFACE)
target_include_directories(kinefit_opencv SYSTEM INTERFACE ${OPENCV_INCLUDE})
target_link_libraries(kinefit_opencv INTERFACE ${OPENCV_IMGPROC} ${OPENCV_CORE})

find_package(tomlplusplus REQUIRED)
find_package(fmt REQUIRED)
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
find_path(NLOHMANN_INCLUDE nlohmann/json.hpp REQUIRED)
find_package(GTest REQUIRED)
