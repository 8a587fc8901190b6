"""The program with the GStreamer it needs, in one folder that runs wherever it is unpacked. Run by `make dist`.

Beside the binary lie the plugins of PLUGINS, their libraries, GStreamer's plugin scanner, presets and weights, and a launcher that sets
the paths. What belongs to the machine stays out: glibc, the C++ runtime, drivers and the display's own libraries, libtorch.

usage: bundle.py BINARY FOLDER
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

PLUGINS = [
    # The frame's way in and out, conversions.
    "coreelements", "typefindfunctions", "playback", "app", "videoconvertscale", "videorate", "videofilter", "deinterlace",
    "videotestsrc", "autodetect",
    # Recordings. H.264 is read by OpenH264: FFmpeg would bring 230 MB of libraries.
    "isomp4", "matroska", "avi", "mpegtsdemux", "mpegtsmux", "videoparsersbad", "jpeg", "png", "openh264", "x264", "rawparse",
    # Cameras, capture cards, networks.
    "video4linux2", "decklink", "udp", "rtp", "rtpmanager", "rtsp", "tcp", "srt",
    # Screens. What they need of the display comes from the machine.
    "ximagesink", "xvimagesink", "waylandsink", "opengl", "kms",
]
"""Names of plugins; elements of others are those of the machine, if it has GStreamer, or are not there."""

OPTIONAL = {"decklink", "kms", "waylandsink", "opengl", "xvimagesink", "ximagesink", "srt"}
"""Not built everywhere; left out with a word where they are missing."""

OF_THE_MACHINE = re.compile(
    r"^(ld-linux|linux-vdso|libc\.|libm\.|libdl\.|librt\.|libpthread\.|libutil\.|libresolv\.|libnsl|libstdc\+\+|libgcc_s"
    r"|libGL|libEGL|libOpenGL|libvulkan|libdrm|libgbm|libX|libxcb|libwayland|libva"
    r"|libtorch|libc10|libgomp|libcud|libcup|libnv|libnccl)"
)
"""Libraries that have to fit the kernel, the driver, the display or libtorch."""

TORCH = os.environ.get("TORCH_VERSION", "2.11.0")
"""The version of PyTorch whose libtorch the program was linked with."""

LAUNCHER = """#!/bin/sh
# Runs the program beside this file with the GStreamer beside it, and with the first libtorch of: $LIBTORCH, libtorch/ or torch/
# here, the torch of Python ($PYTHON, python3).
here=$(dirname -- "$(readlink -f -- "$0")")
for torch in "${LIBTORCH:-}" "$here/libtorch" "$here/torch"; do
    [ -n "$torch" ] && [ -e "$torch/lib/libtorch_cpu.so" ] && break
    torch=
done
if [ -z "$torch" ]; then
    find='import importlib.util as u; print(next(iter(u.find_spec("torch").submodule_search_locations)))'
    torch=$("${PYTHON:-python3}" -c "$find" 2>/dev/null)
fi
if [ ! -e "$torch/lib/libtorch_cpu.so" ]; then
    echo "sonomask: libtorch is missing: set LIBTORCH to the folder whose lib/ has libtorch_cpu.so (PyTorch @TORCH@)" >&2
    exit 1
fi
# Another version would end with a symbol that the dynamic linker misses. One that does not say which it is, is tried.
found=$({ sed -n "s/^__version__ = '\\([0-9.]*\\).*/\\1/p" "$torch/version.py" || cat "$torch/build-version"; } 2>/dev/null)
found=${found%%+*}
if [ -n "$found" ] && [ "$found" != "@TORCH@" ]; then
    echo "sonomask: libtorch in $torch is of PyTorch $found, needed is @TORCH@: set LIBTORCH to the folder of one" >&2
    exit 1
fi
# Plugins of one's own come by GST_PLUGIN_PATH; those of the machine's GStreamer do not fit this one.
LD_LIBRARY_PATH=$here/lib:$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
GST_PLUGIN_SYSTEM_PATH_1_0=$here/lib/gstreamer-1.0
GST_PLUGIN_SCANNER=$here/lib/gst-plugin-scanner
GST_REGISTRY=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/sonomask/plugins-$(echo "$here" | cksum | cut -d ' ' -f 1).bin
export LD_LIBRARY_PATH GST_PLUGIN_SYSTEM_PATH_1_0 GST_PLUGIN_SCANNER GST_REGISTRY
exec "$here/sonomask.bin" "$@"
"""


def needed(listing: str) -> dict[str, Path]:
    """What `ldd` says is loaded, by name, without what belongs to the machine. Fails for what it does not find."""
    found = {}
    for line in listing.splitlines():
        name, _, rest = line.strip().partition(" => ")
        name = Path(name.split(" ")[0]).name
        if not name or OF_THE_MACHINE.match(name) or name in ("statically", "not"):
            continue
        path = rest.split(" (")[0].strip()
        if not path.startswith("/"):
            raise SystemExit(f"error: the library {name} is missing")
        found[name] = Path(path)
    return found


def libraries(of: Path) -> dict[str, Path]:
    """The libraries that a program or a plugin loads."""
    done = subprocess.run(["ldd", of], capture_output=True, text=True, check=True)
    return needed(done.stdout)


def pkg_config(variable: str) -> Path:
    """A folder of the GStreamer that the program was built with."""
    command = ["pkg-config", f"--variable={variable}", "gstreamer-1.0"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def copy(source: Path, target: Path) -> None:
    """A copy without debug symbols."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IWUSR)
    subprocess.run(["strip", "--strip-unneeded", target], check=True)


def package(of: Path) -> str | None:
    """The Debian package that a file is of."""
    # Debian knows files under the folders that /lib and /bin are links to by either name.
    for path in (of, of.resolve(), Path(str(of.resolve()).removeprefix("/usr"))):
        done = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.split(":")[0]
    return None


def licences(files: list[Path], folder: Path) -> None:
    """The licence texts of everything that is copied from the system, with the packages' versions."""
    packages = sorted({name for name in map(package, files) if name})
    folder.mkdir(parents=True, exist_ok=True)
    show = ["dpkg-query", "-W", "-f", "${Package} ${Version} (source ${source:Package})\n", *packages]
    listed = subprocess.run(show, capture_output=True, text=True, check=True).stdout
    (folder / "PACKAGES").write_text(listed)
    for name in packages:
        text = Path("/usr/share/doc") / name / "copyright"
        if text.exists():
            shutil.copyfile(text, folder / name)


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: bundle.py BINARY FOLDER")
    binary, folder = Path(sys.argv[1]), Path(sys.argv[2])
    plugins, scanner = pkg_config("pluginsdir"), pkg_config("pluginscannerdir") / "gst-plugin-scanner"
    sources = [scanner]
    for name in PLUGINS:
        file = plugins / f"libgst{name}.so"
        if file.exists():
            sources.append(file)
        elif name in OPTIONAL:
            print(f"left out  {name}: not among this system's plugins")
        else:
            raise SystemExit(f"error: the plugin {name} is missing in {plugins}: make setup")
    found = {name: path for file in [binary, *sources] for name, path in libraries(file).items()}
    copy(binary, folder / "sonomask.bin")
    for file in sources:
        copy(file, folder / "lib" / (file.name if file == scanner else f"gstreamer-1.0/{file.name}"))
    for name, path in found.items():
        copy(path, folder / "lib" / name)
    launcher = folder / "sonomask"
    launcher.write_text(LAUNCHER.replace("@TORCH@", TORCH))
    launcher.chmod(0o755)
    if shutil.which("dpkg-query"):
        licences([*sources, *found.values()], folder / "licences")
    print(f"bundled   {len(sources) - 1} plugins, {len(found)} libraries")


if __name__ == "__main__":
    main()
