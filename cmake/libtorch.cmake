# LibTorch as kinefit_torch: Debian's, or the one in TORCH_DIR (a LibTorch folder, or the folder
# `torch` of an installed PyTorch package), with its CUDA part if KINEFIT_CUDA is on.
#
# The libraries are named one by one: Debian's CMake package drags in unrelated requirements, and
# that of a LibTorch built with CUDA wants the whole CUDA toolkit even where only the CPU is used.

# The folder of the PyTorch package that python3 would import, or "".
function(find_installed_pytorch result)
  find_program(PYTHON3 python3)
  set(code "import importlib.util as u; s = u.find_spec('torch'); print(s.origin if s else '')")
  execute_process(COMMAND ${PYTHON3} -c "${code}" OUTPUT_VARIABLE origin ERROR_QUIET
    OUTPUT_STRIP_TRAILING_WHITESPACE)
  get_filename_component(folder "${origin}" DIRECTORY)
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

set(libtorch "${TORCH_DIR}")
if(KINEFIT_CUDA AND NOT libtorch)
  find_installed_pytorch(libtorch)
endif()
if(libtorch AND NOT EXISTS "${libtorch}/include/ATen/ATen.h")
  message(FATAL_ERROR "There is no LibTorch in ${libtorch}: include/ATen/ATen.h is missing. Set "
    "TORCH_DIR to a LibTorch folder or to the folder `torch` of an installed PyTorch package "
    "(python3 -c 'import torch; print(torch.__path__[0])').")
endif()
if(KINEFIT_CUDA AND NOT libtorch)
  message(FATAL_ERROR "No LibTorch with CUDA: Debian's has none. Install PyTorch (pip install "
    "torch) or set TORCH_DIR.")
endif()

if(libtorch)
  set(search NO_DEFAULT_PATH PATHS "${libtorch}/lib")
  set(torch_include "${libtorch}/include")
  # Its headers say which standard they need at least.
  file(STRINGS "${torch_include}/ATen/ATen.h" wants_cxx20 REGEX "202002L")
  if(wants_cxx20)
    set(CMAKE_CXX_STANDARD 20)
  endif()
else()
  set(search)
  find_path(torch_include ATen/ATen.h REQUIRED NO_CACHE)
endif()
find_library(torch_cpu torch_cpu REQUIRED NO_CACHE ${search})
find_library(c10 c10 REQUIRED NO_CACHE ${search})
add_library(kinefit_torch INTERFACE)
target_include_directories(kinefit_torch SYSTEM INTERFACE
  ${torch_include} ${torch_include}/torch/csrc/api/include)
target_link_libraries(kinefit_torch INTERFACE ${torch_cpu} ${c10})
if(libtorch)
  message(STATUS "LibTorch: ${libtorch} (C++${CMAKE_CXX_STANDARD})")
endif()
# at::parallel_for is a template: it runs on one thread wherever it is compiled without OpenMP. Not
# under ThreadSanitizer, which cannot see how OpenMP's threads wait for each other, nor with clang,
# which is for fuzzing and checks only and has another OpenMP than LibTorch.
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND NOT KINEFIT_SANITIZE STREQUAL thread)
  find_package(OpenMP REQUIRED)
  target_link_libraries(kinefit_torch INTERFACE OpenMP::OpenMP_CXX)
endif()

if(KINEFIT_CUDA)
  find_package(CUDAToolkit REQUIRED)
  # A PyTorch package says which CUDA it was built with; the libraries of another major version
  # would be loaded beside this toolkit's.
  if(EXISTS "${libtorch}/version.py")
    file(STRINGS "${libtorch}/version.py" line REGEX "^cuda: .*= '")
    string(REGEX REPLACE ".*'([0-9]+)\\..*" "\\1" major "${line}")
    if(NOT major STREQUAL CUDAToolkit_VERSION_MAJOR)
      message(FATAL_ERROR "${libtorch} was built with CUDA \"${major}\", but the CUDA toolkit "
        "found has version ${CUDAToolkit_VERSION}. Install a PyTorch for CUDA "
        "${CUDAToolkit_VERSION_MAJOR}, or set CUDAToolkit_ROOT to another toolkit.")
    endif()
  endif()
  find_library(torch_cuda torch_cuda REQUIRED NO_CACHE ${search})
  find_library(c10_cuda c10_cuda REQUIRED NO_CACHE ${search})
  # PyTorch packages keep NVIDIA's libraries beside them; otherwise they are the system's. The
  # header of NCCL must be that of the NCCL LibTorch was built with: sizes of its structures differ.
  file(GLOB nvidia LIST_DIRECTORIES true "${libtorch}/../nvidia/*")
  list(TRANSFORM nvidia APPEND "/lib" OUTPUT_VARIABLE nvidia_lib)
  list(TRANSFORM nvidia APPEND "/include" OUTPUT_VARIABLE nvidia_include)
  find_library(cudart NAMES libcudart.so.${CUDAToolkit_VERSION_MAJOR} cudart REQUIRED NO_CACHE
    HINTS ${nvidia_lib} ${CUDAToolkit_LIBRARY_DIR})
  find_library(nccl NAMES libnccl.so.2 nccl REQUIRED NO_CACHE
    HINTS ${nvidia_lib} ${CUDAToolkit_LIBRARY_DIR})
  find_path(nccl_include nccl.h REQUIRED NO_CACHE HINTS ${nvidia_include}
    ${CUDAToolkit_INCLUDE_DIRS})
  # torch_cuda registers its kernels when it is loaded; nothing of ours names its symbols.
  target_link_libraries(kinefit_torch INTERFACE -Wl,--push-state,--no-as-needed ${torch_cuda}
    ${c10_cuda} -Wl,--pop-state)
  foreach(folder IN LISTS nvidia_lib)
    target_link_options(kinefit_torch INTERFACE "LINKER:-rpath-link,${folder}")
  endforeach()
  # For the folders that name CUDA or NCCL themselves.
  add_library(kinefit_nccl INTERFACE)
  target_include_directories(kinefit_nccl SYSTEM INTERFACE ${nccl_include}
    ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(kinefit_nccl INTERFACE KINEFIT_CUDA USE_C10D_NCCL)
  target_link_libraries(kinefit_nccl INTERFACE ${nccl} ${cudart})
  message(STATUS "CUDA toolkit ${CUDAToolkit_VERSION}, NCCL: ${nccl_include}/nccl.h, ${nccl}")
endif()
