# Every library from outside, as one imported target each. What they are for: docs/dependencies.md.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

include(cmake/libtorch.cmake)

# What LibTorch's headers of its process groups need to be told, and Gloo's, which they include and
# LibTorch's packages leave out. The code itself is in LibTorch.
find_path(GLOO_INCLUDE gloo/rendezvous/store.h REQUIRED)
add_library(kinefit_c10d INTERFACE)
target_include_directories(kinefit_c10d SYSTEM INTERFACE ${GLOO_INCLUDE})
target_compile_definitions(kinefit_c10d INTERFACE USE_C10D_GLOO)
if(NOT TORCH_DIR AND NOT EXISTS ${TORCH_INCLUDE}/torch/csrc/distributed/autograd/context/context.h)
  target_include_directories(kinefit_c10d SYSTEM INTERFACE ${CMAKE_SOURCE_DIR}/cmake/missing_headers)
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
# For what includes LibTorch as well: packages of PyTorch bring the headers of another fmt, which come
# first and have no library.
add_library(kinefit_fmt INTERFACE)
if(TORCH_DIR OR KINEFIT_CUDA)
  target_link_libraries(kinefit_fmt INTERFACE fmt::fmt-header-only)
else()
  target_link_libraries(kinefit_fmt INTERFACE fmt::fmt)
endif()
find_path(CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
find_path(NLOHMANN_INCLUDE nlohmann/json.hpp REQUIRED)
find_package(GTest REQUIRED)
