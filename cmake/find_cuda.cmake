# Finds an nvcc that works: it must compile a kernel for every architecture that the library is built for. A toolkit
# without its host compiler, or too old for sm_90, counts as none.
#
# Sets in the caller: ${result} TRUE or FALSE, ${why} a sentence when FALSE; when TRUE also CMAKE_CUDA_COMPILER,
# CMAKE_CUDA_ARCHITECTURES, flags and the choice of the static runtime.
function(find_cuda result why)
    set(${result} FALSE PARENT_SCOPE)
    find_program(LOCALLLM_NVCC nvcc HINTS $ENV{CUDACXX} $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
    if(NOT LOCALLLM_NVCC)
        set(${why} "no nvcc was found" PARENT_SCOPE)
        return()
    endif()
    set(probe ${CMAKE_BINARY_DIR}/cuda_probe)
    file(WRITE ${probe}.cu "#include <cuda_fp16.h>\n__global__ void probe(__half *x) { x[0] = __float2half(1.0f); }\n")
    execute_process(
        COMMAND ${LOCALLLM_NVCC} -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90
            -c ${probe}.cu -o ${probe}.o
        RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(failed)
        string(REGEX REPLACE "[\r\n].*" "" first_line "${output}")
        set(${why} "${LOCALLLM_NVCC} cannot compile a kernel for sm_80 and sm_90 (${first_line})" PARENT_SCOPE)
        return()
    endif()
    set(${result} TRUE PARENT_SCOPE)
    set(CMAKE_CUDA_COMPILER ${LOCALLLM_NVCC} PARENT_SCOPE)
    # Machine code for both, and PTX of the newer one for what comes after it.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90 PARENT_SCOPE)
    set(CMAKE_CUDA_STANDARD 17 PARENT_SCOPE)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON PARENT_SCOPE)
    # --fmad=false is the device's -ffp-contract=off: only a written fma is fused.
    set(CMAKE_CUDA_FLAGS "--fmad=false -Xcompiler -Wall,-Wextra,-fPIC" PARENT_SCOPE)
    set(CMAKE_CUDA_FLAGS_RELEASE "-O3" PARENT_SCOPE)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static PARENT_SCOPE)
endfunction()
