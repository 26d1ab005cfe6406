//! Version 1, the published protocol: everything that follows the opening and its answer.
//!
//! PUSH, PULL, ATTACH and SID are the same frames in both versions and live in
//! [`packet`](crate::packet). Numbers, lengths and flags are checked here; what needs more than one
//! packet to judge (an id used twice, a chunk behind the end of its file) is for the machines.

use crate::coding::{DecodeError, Reader};
use crate::error::Violation;
use crate::flag::Flag;
use crate::frame::{self, Frame};
use crate::ids::FileId;
use crate::limits::{MAX_TEXT, V1_CHUNK, V1_MAX_FILE_SIZE};
use crate::meta::Timestamp;
use crate::packet::cut_text;
use crate::path::RelPath;

/// One packet of a version 1 session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum V1Packet<'a> {
    /// Whether the source is one file, so that the destination may be its new name.
    Monofile(bool),
    /// A directory.
    DirInfo(V1Dir),
    /// A file.
    FileInfo(V1File),
    /// How many directories and files there are in all.
    FileCount(u32),
    /// The receiver asks for a file's content, from the first chunk to the last.
    FileReady(FileId),
    /// Some content.
    FileChunk(V1Chunk<'a>),
    /// The receiver has everything, or got EXCEPTION.
    Done,
    /// The session ends with an error: at most [`MAX_TEXT`] bytes of text, not yet escaped.
    Exception(String),
}

/// DIR_INFO: a directory of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1Dir {
    /// Names it from now on; files and directories count together, from 0.
    pub id: FileId,
    /// The low 16 bits of `st_mode`; only 0o777 are ever used.
    pub mode: u16,
    /// Below the destination.
    pub path: RelPath,
}

/// FILE_INFO: a regular file of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1File {
    /// Names it from now on; files and directories count together, from 0.
    pub id: FileId,
    /// The low 16 bits of `st_mode`; only 0o777 are ever used.
    pub mode: u16,
    /// Length in bytes, at most [`V1_MAX_FILE_SIZE`].
    pub size: u64,
    /// Modification time, see [`timestamp_from_f64`].
    pub mtime: Timestamp,
    /// MD5 of the content. Finds accidents, not attacks.
    pub md5: [u8; 16],
    /// Below the destination.
    pub path: RelPath,
}

/// FILE_CHUNK: some content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V1Chunk<'a> {
    /// The file.
    pub file: FileId,
    /// Counts the chunks of a file from 0.
    pub seq: u32,
    /// 1 to [`V1_CHUNK`] bytes; only a file's last chunk has fewer than the most.
    pub bytes: &'a [u8],
}

impl V1Chunk<'_> {
    /// Where in the file it lies, in bytes.
    pub fn offset(&self) -> u64 {
        u64::from(self.seq) * V1_CHUNK as u64
    }
}

impl<'a> V1Packet<'a> {
    /// Reads a frame of a version 1 session.
    pub fn decode(frame: Frame<'a>) -> Result<V1Packet<'a>, Violation> {
        let flag = frame.flag;
        let mut r = Reader::new(frame.payload);
        let packet = match flag {
            Flag::MONOFILE => boolean(&mut r).map(V1Packet::Monofile),
            Flag::DIR_INFO => dir(&mut r).map(V1Packet::DirInfo),
            Flag::FILE_INFO => file(&mut r).map(V1Packet::FileInfo),
            Flag::FILE_COUNT => r.u32().map(V1Packet::FileCount),
            Flag::FILE_READY => r.u32().map(|id| V1Packet::FileReady(FileId(id))),
            Flag::FILE_CHUNK => chunk(&mut r).map(V1Packet::FileChunk),
            Flag::DONE => done(&mut r).map(|()| V1Packet::Done),
            Flag::EXCEPTION => Ok(V1Packet::Exception(text(&mut r))),
            got => return Err(Violation::Unexpected { got, expected: "a version 1 packet" }),
        };
        packet
            .and_then(|packet| r.finish().map(|()| packet))
            .map_err(|error| Violation::Decode { flag, error })
    }

    /// The flag of the frame that carries it.
    pub fn flag(&self) -> Flag {
        match self {
            V1Packet::Monofile(_) => Flag::MONOFILE,
            V1Packet::DirInfo(_) => Flag::DIR_INFO,
            V1Packet::FileInfo(_) => Flag::FILE_INFO,
            V1Packet::FileCount(_) => Flag::FILE_COUNT,
            V1Packet::FileReady(_) => Flag::FILE_READY,
            V1Packet::FileChunk(_) => Flag::FILE_CHUNK,
            V1Packet::Done => Flag::DONE,
            V1Packet::Exception(_) => Flag::EXCEPTION,
        }
    }

    /// Appends the frame. Longer content than [`V1_CHUNK`] or text than [`MAX_TEXT`] is the
    /// caller's mistake, and text is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::encode_with(self.flag(), out, |out| self.put_payload(out));
    }

    fn put_payload(&self, out: &mut Vec<u8>) {
        match self {
            V1Packet::Monofile(mono) => out.push(u8::from(*mono)),
            V1Packet::DirInfo(dir) => {
                put(out, &[&dir.id.0.to_be_bytes(), &dir.mode.to_be_bytes(), dir.path.as_bytes()]);
            }
            V1Packet::FileInfo(file) => put(
                out,
                &[
                    &file.id.0.to_be_bytes(),
                    &file.mode.to_be_bytes(),
                    &file.size.to_be_bytes(),
                    &timestamp_to_f64(file.mtime).to_be_bytes(),
                    &file.md5,
                    file.path.as_bytes(),
                ],
            ),
            V1Packet::FileCount(n) | V1Packet::FileReady(FileId(n)) => {
                put(out, &[&n.to_be_bytes()])
            }
            V1Packet::FileChunk(chunk) => {
                debug_assert!((1..=V1_CHUNK).contains(&chunk.bytes.len()));
                put(out, &[&chunk.file.0.to_be_bytes(), &chunk.seq.to_be_bytes(), chunk.bytes]);
            }
            V1Packet::Done => out.push(1),
            V1Packet::Exception(text) => put(out, &[cut_text(text, MAX_TEXT).as_bytes()]),
        }
    }
}

/// A modification time as version 1 has it, in seconds since 1970 as a double.
///
/// Rounds to the nearest nanosecond. NaN and the infinities are no time and give `None`; what is
/// finite but outside 64-bit seconds becomes the first or last second there is, so that a file is
/// not lost for its date.
pub fn timestamp_from_f64(secs: f64) -> Option<Timestamp> {
    const NANOS: f64 = 1e9;
    if !secs.is_finite() {
        return None;
    }
    let whole = secs.floor();
    // `whole` is at most `secs`, so this lies between 0 and 10^9; it is 10^9 after rounding up.
    let nanos = ((secs - whole) * NANOS).round() as u32;
    // A float-to-integer cast saturates.
    let secs = whole as i64;
    Some(match nanos {
        1_000_000_000 => Timestamp { secs: secs.saturating_add(1), nanos: 0 },
        nanos => Timestamp { secs, nanos },
    })
}

/// A modification time as version 1 sends it. A double near today's date steps by 240 ns, so times
/// that went through version 1 are the same when they are less than a microsecond apart.
pub fn timestamp_to_f64(time: Timestamp) -> f64 {
    time.secs as f64 + f64::from(time.nanos) / 1e9
}

fn boolean(r: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Malformed("a truth value that is neither 0 nor 1")),
    }
}

fn done(r: &mut Reader<'_>) -> Result<(), DecodeError> {
    if boolean(r)? { Ok(()) } else { Err(DecodeError::Malformed("a 0 where only 1 is allowed")) }
}

fn dir(r: &mut Reader<'_>) -> Result<V1Dir, DecodeError> {
    Ok(V1Dir { id: FileId(r.u32()?), mode: r.u16()?, path: RelPath::new(r.rest())? })
}

fn file(r: &mut Reader<'_>) -> Result<V1File, DecodeError> {
    let (id, mode, size) = (FileId(r.u32()?), r.u16()?, r.u64()?);
    if size > V1_MAX_FILE_SIZE {
        return Err(DecodeError::Malformed("a file size above 2^32 chunks"));
    }
    let mtime = timestamp_from_f64(f64::from_be_bytes(r.array()?))
        .ok_or(DecodeError::Malformed("a modification time that is no number"))?;
    Ok(V1File { id, mode, size, mtime, md5: r.array()?, path: RelPath::new(r.rest())? })
}

fn chunk<'a>(r: &mut Reader<'a>) -> Result<V1Chunk<'a>, DecodeError> {
    let (file, seq, bytes) = (FileId(r.u32()?), r.u32()?, r.rest());
    if bytes.is_empty() || bytes.len() > V1_CHUNK {
        return Err(DecodeError::Malformed("no content or too much of it"));
    }
    Ok(V1Chunk { file, seq, bytes })
}

fn text(r: &mut Reader<'_>) -> String {
    cut_text(&String::from_utf8_lossy(r.rest()), MAX_TEXT).to_owned()
}

fn put(out: &mut Vec<u8>, fields: &[&[u8]]) {
    fields.iter().for_each(|field| out.extend_from_slice(field));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(flag: Flag, payload: &[u8]) -> Result<V1Packet<'_>, Violation> {
        V1Packet::decode(Frame { flag, payload })
    }

    #[test]
    fn w04_every_other_length_than_the_fixed_one_is_refused() {
        for (flag, right) in
            [(Flag::MONOFILE, 1), (Flag::DONE, 1), (Flag::FILE_COUNT, 4), (Flag::FILE_READY, 4)]
        {
            let bytes = [1; 9];
            for len in 0..bytes.len() {
                assert_eq!(decode(flag, &bytes[..len]).is_ok(), len == right, "{flag} of {len}");
            }
        }
        let bytes = [b'1'; 65_535];
        for (flag, least, most) in
            [(Flag::DIR_INFO, 7, 6 + 255), (Flag::FILE_CHUNK, 9, 8 + V1_CHUNK)]
        {
            for (len, ok) in
                [(0, false), (least - 1, false), (least, true), (most, true), (most + 1, false)]
            {
                assert_eq!(decode(flag, &bytes[..len]).is_ok(), ok, "{flag} of {len}");
            }
            assert!(decode(flag, &bytes).is_err());
        }
        let mut info = [0; 40];
        info[38..].copy_from_slice(b"xy");
        for len in 0..info.len() {
            assert_eq!(decode(Flag::FILE_INFO, &info[..len]).is_ok(), len > 38, "{len}");
        }
    }

    #[test]
    fn w05_w06_only_version_1_flags_after_the_opening_are_packets() {
        for flag in (0..=255).map(Flag) {
            let known = (0x05..=0x0c).contains(&flag.0);
            let unexpected = matches!(decode(flag, &[]), Err(Violation::Unexpected { .. }));
            assert_eq!(unexpected, !known, "{flag}");
        }
    }

    #[test]
    fn w07_a_truth_value_is_0_or_1() {
        for b in 0..=255 {
            assert_eq!(decode(Flag::MONOFILE, &[b]).is_ok(), b < 2);
            assert_eq!(decode(Flag::DONE, &[b]).is_ok(), b == 1);
        }
    }

    #[test]
    fn w17_an_exception_is_cut_and_keeps_whole_characters() {
        let bytes = "é\x1b[31m".repeat(9000);
        let Ok(V1Packet::Exception(text)) = decode(Flag::EXCEPTION, bytes.as_bytes()) else {
            panic!("refused")
        };
        assert!(text.len() <= MAX_TEXT && bytes.starts_with(&text));
        assert!(matches!(decode(Flag::EXCEPTION, &[0xff; 65_535]), Ok(V1Packet::Exception(_))));
    }

    #[test]
    fn d13_no_mtime_is_a_panic() {
        assert_eq!(timestamp_from_f64(f64::NAN), None);
        assert_eq!(timestamp_from_f64(f64::INFINITY), None);
        assert_eq!(timestamp_from_f64(f64::NEG_INFINITY), None);
        for (f, secs, nanos) in [
            (0.0, 0, 0),
            (-0.0, 0, 0),
            (1.5, 1, 500_000_000),
            (-1.25, -2, 750_000_000),
            (-1e-12, 0, 0),
            (0.999_999_999_9, 1, 0),
            (1e300, i64::MAX, 0),
            (-1e300, i64::MIN, 0),
            (9.3e18, i64::MAX, 0),
        ] {
            assert_eq!(timestamp_from_f64(f), Some(Timestamp { secs, nanos }), "{f}");
        }
    }

    #[test]
    fn d13_a_time_survives_going_back_and_forth() {
        for f in [0.1, 1.7e9 + 0.123_456_7, -4_194_304.3, 8_388_607.999_999_999, 1e17, 1e300] {
            let time = timestamp_from_f64(f).unwrap();
            assert_eq!(timestamp_from_f64(timestamp_to_f64(time)), Some(time), "{f}");
        }
    }

    #[test]
    fn w12_sizes_and_offsets_stay_below_the_limits() {
        let mut info = vec![0; 38];
        info.push(b'x');
        for (size, ok) in [(1u64 << 44, true), ((1 << 44) + 1, false), (u64::MAX, false)] {
            info[6..14].copy_from_slice(&size.to_be_bytes());
            assert_eq!(decode(Flag::FILE_INFO, &info).is_ok(), ok);
        }
        let last = V1Chunk { file: FileId(0), seq: u32::MAX, bytes: b"x" };
        assert_eq!(last.offset(), (1 << 44) - 4096);
    }
}
