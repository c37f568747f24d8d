# make build   ./build/kinefit            make test    build and run the tests
# make demo    the whole job on the built-in set (under 8 minutes on two cores after the build)
# make soak    the long tests             make bench   planning and loading times
# make build-cuda   everything, linked to a LibTorch 2.x with CUDA (docs/libtorch.md)
# make asan | tsan | ubsan                the tests under a sanitizer
# make fuzz                               each reader for FUZZ_SECONDS (60) on one core
# make check   structure, registration     make tidy    clang-format and clang-tidy
# make gpu-test | gpu-bench               on a machine with a GPU: its tests; steps beside PyTorch's
.PHONY: gpu-test gpu-bench build build-cuda test demo soak bench check tidy asan tsan ubsan fuzz clean

# TORCH_DIR=FOLDER: another LibTorch than Debian's, in a build folder of its own (docs/libtorch.md).
BUILD ?= $(if $(TORCH_DIR),build-torch2,build)
CONFIGURE = cmake -G Ninja -S . -B $(BUILD) $(if $(TORCH_DIR),-DTORCH_DIR=$(TORCH_DIR))

build:
	@./setup.sh
	@$(CONFIGURE) > /dev/null
	@ninja -C $(BUILD) kinefit

test:
	@./setup.sh --test
	@$(CONFIGURE) -DKINEFIT_SLOW=OFF > /dev/null
	@ninja -C $(BUILD)
	@cd $(BUILD) && ctest --output-on-failure

build-cuda:
	@./setup.sh
	@cmake --preset cuda $(if $(TORCH_DIR),-DTORCH_DIR=$(TORCH_DIR)) > /dev/null
	@ninja -C build-cuda

gpu-test: build-cuda
	@cd build-cuda && ./src/ops/ops_test --gtest_filter='*Gpu*' && ./tests/gpu_test

gpu-bench: build-cuda
	@ninja -C build-cuda gpu_step_bench
	@bench/gpu.sh build-cuda

demo: build
	@scripts/demo.sh

soak:
	@./setup.sh --test
	@cmake -G Ninja -S . -B $(BUILD)-soak $(if $(TORCH_DIR),-DTORCH_DIR=$(TORCH_DIR)) -DKINEFIT_SLOW=ON > /dev/null
	@ninja -C $(BUILD)-soak
	@cd $(BUILD)-soak && ctest --output-on-failure -L slow

bench: build
	@ninja -C $(BUILD) loader_bench
	@scripts/bench.sh

check:
	@scripts/check_structure.sh
	@scripts/check_tests_registered.sh $(BUILD)

tidy:
	@./setup.sh --dev
	@$(CONFIGURE) > /dev/null
	@scripts/tidy.sh $(BUILD)

asan tsan ubsan:
	@./setup.sh --test
	@cmake --preset $@ > /dev/null
	@ninja -C $(BUILD)-$@
	@cd $(BUILD)-$@ && ctest --output-on-failure

fuzz:
	@./setup.sh --dev
	@cmake -G Ninja -S . -B $(BUILD)-fuzz -DKINEFIT_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++ > /dev/null
	@ninja -C $(BUILD)-fuzz fuzz
	@scripts/fuzz.sh $(BUILD)-fuzz

clean:
	rm -rf $(BUILD) build-cuda $(BUILD)-asan $(BUILD)-tsan $(BUILD)-ubsan $(BUILD)-soak $(BUILD)-fuzz
