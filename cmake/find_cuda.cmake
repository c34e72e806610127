# Finds an nvcc that works: a trial project (cmake/cuda_probe) must build for every architecture that the library is
# built for. A toolkit without its host compiler, or too old for sm_90, counts as none.
#
# Sets in the caller: ${result} TRUE or FALSE, ${why} a sentence when FALSE; when TRUE also what enable_language(CUDA)
# goes by: the compiler, the architectures, flags and the static runtime.
function(find_cuda result why)
    set(${result} FALSE PARENT_SCOPE)
    find_program(LOCALLLM_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
    if(NOT LOCALLLM_NVCC)
        set(${why} "no nvcc was found" PARENT_SCOPE)
        return()
    endif()

    set(CMAKE_CUDA_COMPILER ${LOCALLLM_NVCC})
    # Machine code for both, and PTX of the newer one for what comes after it.
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
    # --fmad=false is the device's -ffp-contract=off: only a written fma is fused. Without exceptions and guarded
    # statics the host's side needs no libstdc++.
    set(CMAKE_CUDA_FLAGS "--fmad=false -Xcompiler -Wall,-Wextra,-fno-exceptions,-fno-threadsafe-statics")
    set(CMAKE_CUDA_FLAGS_RELEASE -O3)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    set(CMAKE_CUDA_STANDARD 17)

    set(probe ${CMAKE_BINARY_DIR}/cuda_probe)
    set(cache "set(CMAKE_BUILD_TYPE Release CACHE STRING \"\")\n")
    foreach(name CMAKE_C_COMPILER CMAKE_MAKE_PROGRAM CMAKE_POSITION_INDEPENDENT_CODE CMAKE_CUDA_COMPILER
            CMAKE_CUDA_ARCHITECTURES CMAKE_CUDA_FLAGS CMAKE_CUDA_FLAGS_RELEASE CMAKE_CUDA_RUNTIME_LIBRARY
            CMAKE_CUDA_STANDARD)
        string(APPEND cache "set(${name} \"${${name}}\" CACHE STRING \"\")\n")
    endforeach()
    file(WRITE ${probe}.cmake "${cache}")
    set(configure ${CMAKE_COMMAND} -G ${CMAKE_GENERATOR} -C ${probe}.cmake -S ${CMAKE_SOURCE_DIR}/cmake/cuda_probe
        -B ${probe})
    foreach(command "${configure}" "${CMAKE_COMMAND};--build;${probe}")
        execute_process(COMMAND ${command} RESULT_VARIABLE failed OUTPUT_VARIABLE output ERROR_VARIABLE output)
        if(failed)
            string(REGEX MATCH "[^\n]*(rror:|not found|No such file)[^\n]*" reason "${output}")
            string(STRIP "${reason}" reason)
            set(${why} "a trial build with ${LOCALLLM_NVCC} failed (${reason})" PARENT_SCOPE)
            return()
        endif()
    endforeach()

    set(${result} TRUE PARENT_SCOPE)
    foreach(name COMPILER ARCHITECTURES FLAGS FLAGS_RELEASE RUNTIME_LIBRARY STANDARD)
        set(CMAKE_CUDA_${name} ${CMAKE_CUDA_${name}} PARENT_SCOPE)
    endforeach()
endfunction()
