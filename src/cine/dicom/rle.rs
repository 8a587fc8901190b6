//! DICOM's run-length compression (PS3.5 Annex G), bounded by the frame's size.

use crate::cine::CineError;

/// Bytes of the segment table: a count and fifteen offsets.
const TABLE: usize = 64;

/// Unpacks a frame of `planes` byte planes of `area` bytes each.
///
/// Samples come out one after the other with their least significant byte first, all samples of a pixel together;
/// in the file each segment is one byte of one sample, the most significant first.
///
/// # Errors
/// A wrong number of segments, offsets outside the data, or a segment that ends before its plane is full.
pub(super) fn decode(data: &[u8], area: usize, samples: usize, bytes: usize) -> Result<Vec<u8>, CineError> {
    let bad = |problem: String| CineError::Decode { codec: "RLE", problem };
    let planes = samples * bytes;
    let table = data.get(..TABLE).ok_or_else(|| bad(format!("{} bytes are too few", data.len())))?;
    let table: Vec<usize> =
        table.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    if table.first() != Some(&planes) {
        return Err(bad(format!("{} segments, expected {planes}", table.first().unwrap_or(&0))));
    }
    let mut out = vec![0; area * planes];
    for plane in 0..planes {
        let start = table.get(plane + 1).copied().unwrap_or(0);
        // The last segment runs to the end of the data.
        let end = if plane + 1 < planes { table.get(plane + 2).copied().unwrap_or(0) } else { data.len() };
        let segment = data.get(start..end).filter(|_| start >= TABLE).ok_or_else(|| {
            bad(format!("segment {plane} lies at {start} to {end} of {} bytes", data.len()))
        })?;
        let (sample, byte) = (plane / bytes, bytes - 1 - plane % bytes);
        let first = sample * bytes + byte;
        let filled = unpack(segment, out.iter_mut().skip(first).step_by(planes));
        if filled < area {
            return Err(bad(format!("segment {plane} holds {filled} of {area} bytes")));
        }
    }
    Ok(out)
}

/// Unpacks until either side ends; the number of bytes written.
fn unpack<'a>(segment: &[u8], mut out: impl Iterator<Item = &'a mut u8>) -> usize {
    let mut input = segment.iter().copied();
    let mut filled = 0;
    while let Some(control) = input.next() {
        let control = control as i8;
        // -128 is a filler.
        let (literal, count) = match control {
            0.. => (true, control as usize + 1),
            -127..=-1 => (false, 1 + usize::from(control.unsigned_abs())),
            i8::MIN => continue,
        };
        let mut value = 0;
        for i in 0..count {
            if literal || i == 0 {
                let Some(next) = input.next() else { return filled };
                value = next;
            }
            let Some(slot) = out.next() else { return filled };
            *slot = value;
            filled += 1;
        }
    }
    filled
}
