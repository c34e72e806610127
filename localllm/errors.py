"""Every way in which localllm can refuse or fail. A native code, an exception and an HTTP status are one thing.

LocalLLMError
├── InvalidArgument   (also a ValueError)  LL_EINVAL        400  an argument is out of its range
├── FileError                              LL_EIO           404  a file cannot be opened, read or mapped
├── FormatError                            LL_EFORMAT       400  a file contradicts its format or itself
├── UnsupportedError                       LL_EUNSUPPORTED  400  well formed, but not built
├── MemoryLimitError                       LL_ENOMEM        503  memory that was asked for is not there
├── DeviceError                            LL_EDEVICE       503  the device failed, or there is none
├── TemplateError                                           400  a chat template cannot be rendered
├── FormError                                               400  an answer cannot go on in the form it must have
├── ChildError                                           503  a child process (text/child.py) does not work
├── ClosedError                                             503  used after close()
└── ForkError                                               500  used in a child process after fork()
"""

from typing import ClassVar


class LocalLLMError(Exception):
    http_status: ClassVar[int] = 500


class InvalidArgument(LocalLLMError, ValueError):  # noqa: N818 - named as the argument is, not as an error
    http_status = 400


class FileError(LocalLLMError):
    http_status = 404


class FormatError(LocalLLMError):
    http_status = 400


class UnsupportedError(LocalLLMError):
    http_status = 400


class MemoryLimitError(LocalLLMError):
    http_status = 503


class DeviceError(LocalLLMError):
    http_status = 503


class TemplateError(LocalLLMError):
    http_status = 400


class FormError(LocalLLMError):
    http_status = 400


class ChildError(LocalLLMError):
    http_status = 503


class ClosedError(LocalLLMError):
    http_status = 503


class ForkError(LocalLLMError):
    http_status = 500


_BY_CODE: dict[int, type[LocalLLMError]] = {  # LL_E* in native/include/localllm_abi.h
    -1: InvalidArgument,
    -2: FileError,
    -3: FormatError,
    -4: UnsupportedError,
    -5: MemoryLimitError,
    -6: DeviceError,
}


def for_code(code: int, sentence: str) -> LocalLLMError:
    """The exception for a negative native code; a code that is not known is a plain LocalLLMError."""
    return _BY_CODE.get(code, LocalLLMError)(sentence)
