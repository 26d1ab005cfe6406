//! `zip_before_move`: one `NAME.zip` per file, read back whole before the file may go.
//!
//! The zip crate reads and writes in its own thread; [`Reach`] takes its calls to the location.

use std::io::{self, Read, Seek, SeekFrom, Write};

use bytes::{Bytes, BytesMut};
use fcp_proto::meta::Timestamp;
use fcp_proto::path::{Name, RelPath};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use zip::write::{ExtendedFileOptions, FileOptions};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

use super::content::{self, InOrder};
use crate::location::{Location, LocationError, Meta, Op, Reason, SetMeta, Sink, Source};

/// What one call of the zip crate gathers before it goes to the location.
const PIECE: usize = 256 << 10;
/// From here on sizes need zip64; below the four gigabytes that fit without, as deflate may make a
/// file a little longer.
const ZIP64: u64 = 0xF000_0000;
/// The header of an "extended timestamp": seconds since the epoch, of which DOS times know nothing.
const TIMESTAMP: u16 = 0x5455;

/// What a zip holds.
pub(super) struct Content<'a> {
    /// Its name in the zip.
    pub(super) name: &'a Name,
    /// As listed.
    pub(super) meta: Meta,
    /// `sha256:<hex>`.
    pub(super) hash: &'a str,
}

/// Writes the zip of `path` to `temp` at the same place, durably, unless the file is not what
/// `content` says. What was begun stays for the caller to remove.
pub(super) async fn write(
    place: &Location,
    path: &RelPath,
    content: &Content<'_>,
    temp: &RelPath,
) -> Result<(), LocationError> {
    let source = place.open(path).await?;
    let sink = place.create(temp).await?;
    let (name, meta, handle) = (content.name.clone(), content.meta, Handle::current());
    let reach = Reach { place: place.clone(), path: temp.clone(), handle };
    let (sink, length, hash) = blocking(move || {
        let mut writer = Writer::new(&reach, sink);
        let hash = fill(&reach, &mut writer, &source, &name, &meta)
            .map_err(|e| reach.failed(e, Op::Write))?;
        let length = writer.end();
        Ok((writer.sink, length, hash))
    })
    .await?;
    if content::text(&hash) != content.hash {
        return Err(content::changed(place, path));
    }
    let set = SetMeta { mode: content.meta.mode, mtime: content.meta.mtime };
    sink.close(length, set, true).await.map(drop)
}

/// Whether the zip at `path` is whole and holds exactly this file: central directory, CRC, size and
/// every byte.
pub(super) async fn proves(
    place: &Location,
    path: &RelPath,
    content: &Content<'_>,
) -> Result<bool, LocationError> {
    let source = place.open(path).await?;
    let size = source.stat().await?.size;
    let reach = Reach { place: place.clone(), path: path.clone(), handle: Handle::current() };
    let (name, wanted) = (content.name.clone(), content.meta.size);
    let hash = blocking(move || {
        let reader =
            Reader { reach: &reach, source, size, at: 0, have: Bytes::new(), from: 0, lost: None };
        unpack(reader, &name, wanted)
    })
    .await?;
    Ok(hash.is_some_and(|hash| content::text(&hash) == content.hash))
}

/// The way from the zip crate's thread to the location.
struct Reach {
    place: Location,
    path: RelPath,
    handle: Handle,
}

impl Reach {
    fn failed(&self, error: io::Error, op: Op) -> LocationError {
        match error.downcast::<LocationError>() {
            Ok(error) => error,
            Err(error) => LocationError {
                place: self.place.name().to_owned(),
                op,
                path: self.path.to_string(),
                reason: Reason::Io,
                text: error.to_string(),
            },
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LocationError> + Send + 'static,
) -> Result<T, LocationError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(panic) => match panic.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime goes away under us.
            Err(_) => std::future::pending().await,
        },
    }
}

fn fill(
    reach: &Reach,
    writer: &mut Writer<'_>,
    source: &Source,
    name: &Name,
    meta: &Meta,
) -> io::Result<Vec<u8>> {
    let mut archive = ZipWriter::new(writer);
    archive.start_file_with_options(options(meta)?.name(name)).map_err(io::Error::other)?;
    let mut content = InOrder::new(source, meta.size);
    let mut hash = Sha256::new();
    while let Some(piece) = reach.handle.block_on(content.next()).map_err(io::Error::other)? {
        hash.update(&piece);
        archive.write_all(&piece)?;
    }
    archive.finish().map_err(io::Error::other)?.flush()?;
    Ok(hash.finalize().to_vec())
}

fn options(meta: &Meta) -> io::Result<FileOptions<'static, 'static, ExtendedFileOptions>> {
    let mut options = FileOptions::<ExtendedFileOptions>::default()
        .compression_method(CompressionMethod::Deflated)
        .large_file(meta.size >= ZIP64)
        .unix_permissions(meta.mode.unwrap_or(0o644) & 0o777);
    let Some(mtime) = meta.mtime else { return Ok(options) };
    options = options.last_modified_time(dos_time(mtime));
    // One byte of flags (1: a modification time follows) and 32 bits of seconds.
    if let Ok(secs) = i32::try_from(mtime.secs) {
        let mut field = vec![1];
        field.extend_from_slice(&secs.to_le_bytes());
        options.add_extra_field(TIMESTAMP, field, false).map_err(io::Error::other)?;
    }
    Ok(options)
}

/// DOS times are local ones, from 1980 on, in steps of two seconds.
fn dos_time(time: Timestamp) -> DateTime {
    let local = jiff::Timestamp::from_second(time.secs)
        .map(|time| time.to_zoned(jiff::tz::TimeZone::system()).datetime());
    let Ok(local) = local else { return DateTime::DEFAULT };
    let part = |number: i8| u8::try_from(number).unwrap_or_default();
    DateTime::from_date_and_time(
        u16::try_from(local.year()).unwrap_or_default(),
        part(local.month()),
        part(local.day()),
        part(local.hour()),
        part(local.minute()),
        part(local.second()),
    )
    .unwrap_or(DateTime::DEFAULT)
}

/// The hash of the only file in a zip, if it has this name and size; `None` for any other zip.
fn unpack(
    mut reader: Reader<'_>,
    name: &Name,
    wanted: u64,
) -> Result<Option<Vec<u8>>, LocationError> {
    let hash = hash_of(&mut reader, name, wanted);
    // A zip that cannot be read for want of a connection is not a bad zip.
    match reader.lost {
        Some(error) => Err(error),
        None => Ok(hash),
    }
}

fn hash_of(reader: &mut Reader<'_>, name: &Name, wanted: u64) -> Option<Vec<u8>> {
    let mut archive = ZipArchive::new(reader).ok()?;
    if archive.len() != 1 {
        return None;
    }
    let mut file = archive.by_index(0).ok()?;
    if file.name_raw() != name.as_bytes() || file.size() != wanted {
        return None;
    }
    let (mut hash, mut size, mut piece) = (Sha256::new(), 0_u64, vec![0; 64 << 10]);
    loop {
        // The crate compares the CRC when the content ends.
        let read = file.read(&mut piece).ok()?;
        if read == 0 {
            return (size == wanted).then(|| hash.finalize().to_vec());
        }
        size += read as u64;
        if size > wanted {
            return None;
        }
        hash.update(&piece[..read]);
    }
}

/// What the zip crate writes to. It goes back to mend its headers.
struct Writer<'a> {
    reach: &'a Reach,
    sink: Sink,
    /// Where `pending` goes.
    from: u64,
    pending: BytesMut,
    length: u64,
}

impl<'a> Writer<'a> {
    fn new(reach: &'a Reach, sink: Sink) -> Writer<'a> {
        Writer { reach, sink, from: 0, pending: BytesMut::new(), length: 0 }
    }

    fn end(&self) -> u64 {
        self.length
    }

    fn send(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let piece = self.pending.split().freeze();
        let at = self.from;
        self.from += piece.len() as u64;
        self.length = self.length.max(self.from);
        self.reach.handle.block_on(self.sink.write_at(at, piece)).map_err(io::Error::other)
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.pending.extend_from_slice(buf);
        if self.pending.len() >= PIECE {
            self.send()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Seek for Writer<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let here = self.from + self.pending.len() as u64;
        let end = self.length.max(here);
        let to = target(to, here, end)?;
        if to != here {
            self.send()?;
            // What is on its way may overlap with what comes.
            self.reach.handle.block_on(self.sink.settle()).map_err(io::Error::other)?;
            self.from = to;
        }
        Ok(to)
    }
}

/// What the zip crate reads from.
struct Reader<'a> {
    reach: &'a Reach,
    source: Source,
    size: u64,
    at: u64,
    /// Content from `from` on.
    have: Bytes,
    from: u64,
    lost: Option<LocationError>,
}

impl Reader<'_> {
    fn load(&mut self) -> Result<(), LocationError> {
        let end = self.size.min(self.at + content::WINDOW);
        let mut pieces = self.source.read_range(self.at..end);
        let mut window = BytesMut::zeroed(usize::try_from(end - self.at).unwrap_or(usize::MAX));
        self.reach.handle.block_on(async {
            while let Some(piece) = pieces.next().await {
                let (offset, piece) = piece?;
                let start = usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
                let room =
                    start.checked_add(piece.len()).and_then(|end| window.get_mut(start..end));
                match room {
                    Some(room) => room.copy_from_slice(&piece),
                    None => return Err(content::changed(&self.reach.place, &self.reach.path)),
                }
            }
            Ok(())
        })?;
        (self.have, self.from) = (window.freeze(), self.at);
        Ok(())
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size || buf.is_empty() {
            return Ok(0);
        }
        if self.at < self.from || self.at >= self.from + self.have.len() as u64 {
            self.load().map_err(|error| {
                self.lost = Some(error.clone());
                io::Error::other(error)
            })?;
        }
        let skip = usize::try_from(self.at - self.from).unwrap_or(usize::MAX);
        let have = self.have.get(skip..).unwrap_or_default();
        let taken = have.len().min(buf.len());
        buf[..taken].copy_from_slice(&have[..taken]);
        self.at += taken as u64;
        Ok(taken)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = target(to, self.at, self.size)?;
        Ok(self.at)
    }
}

fn target(to: SeekFrom, here: u64, end: u64) -> io::Result<u64> {
    let to = match to {
        SeekFrom::Start(to) => Some(to),
        SeekFrom::Current(by) => here.checked_add_signed(by),
        SeekFrom::End(by) => end.checked_add_signed(by),
    };
    to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::tests::support::Place;
    use fcp_common::fs::Kind;

    fn meta(size: u64) -> Meta {
        let mtime = Some(Timestamp { secs: 1_700_000_001, nanos: 0 });
        Meta { kind: Kind::File, size, mtime, mode: Some(0o640), id: None }
    }

    fn path(bytes: &[u8]) -> RelPath {
        RelPath::new(bytes).unwrap()
    }

    fn hash(content: &[u8]) -> String {
        content::text(&Sha256::digest(content))
    }

    #[tokio::test]
    async fn s22_names_of_any_bytes_times_and_modes_come_back() {
        let place = Place::local();
        for name in [&b"\xff\xfe.csv"[..], b"back\\slash", "ümläut".as_bytes(), b"C:x", b"-rf"] {
            use std::os::unix::ffi::OsStrExt;
            std::fs::write(place.dir.path().join(std::ffi::OsStr::from_bytes(name)), b"content")
                .unwrap();
            let of = Name::new(name).unwrap();
            let content = Content { name: &of, meta: meta(7), hash: &hash(b"content") };
            write(&place.at, &path(name), &content, &path(b"x.zip")).await.unwrap();
            assert!(proves(&place.at, &path(b"x.zip"), &content).await.unwrap(), "{of}");
            let bytes = place.get("x.zip");
            let mut zip = ZipArchive::new(io::Cursor::new(&bytes)).unwrap();
            assert_eq!(zip.by_index(0).unwrap().unix_mode().unwrap() & 0o777, 0o640);
            let times = place.at.stat(&path(b"x.zip")).await.unwrap().unwrap().mtime;
            assert_eq!(times, meta(7).mtime);
            std::fs::remove_file(place.dir.path().join("x.zip")).unwrap();
        }
    }

    #[tokio::test]
    async fn z08_a_zip_with_any_byte_wrong_proves_nothing_or_still_holds_the_file() {
        let place = Place::local();
        place.put("a", b"a content that is long enough to be deflated, deflated, deflated");
        let content = place.get("a");
        let name = Name::new(b"a").unwrap();
        let wanted = hash(&content);
        let held = Content { name: &name, meta: meta(content.len() as u64), hash: &wanted };
        write(&place.at, &path(b"a"), &held, &path(b"a.zip")).await.unwrap();
        let whole = place.get("a.zip");
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0x55;
            place.put("b.zip", &broken);
            if proves(&place.at, &path(b"b.zip"), &held).await.unwrap() {
                let mut zip = ZipArchive::new(io::Cursor::new(&broken)).unwrap();
                let mut read = Vec::new();
                zip.by_index(0).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == content, "byte {at}");
            }
        }
        for length in 0..whole.len() {
            place.put("b.zip", &whole[..length]);
            assert!(!proves(&place.at, &path(b"b.zip"), &held).await.unwrap(), "{length} bytes");
        }
    }

    #[tokio::test]
    async fn s22_a_source_that_is_not_what_was_copied_gets_no_zip() {
        let place = Place::local();
        place.put("a", b"other content");
        let name = Name::new(b"a").unwrap();
        let held = Content { name: &name, meta: meta(13), hash: &hash(b"first content") };
        let error = write(&place.at, &path(b"a"), &held, &path(b"a.zip")).await.unwrap_err();
        assert_eq!(error.reason, Reason::Changed);
    }
}
