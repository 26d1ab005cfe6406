//! The data plane of plain threads: blocking sockets, one thread a connection.

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::frames::{BLOCK, Block, RECEIVE_BUFFER, Sink};
use crate::{Job, Plane};

/// Sends the file over the job's connections, each taking the next block that nobody has.
pub(crate) fn send(job: &Job, file: &File, to: SocketAddr) -> io::Result<()> {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..job.connections)
            .map(|_| scope.spawn(|| send_blocks(job, file, &next, TcpStream::connect(to)?)))
            .collect();
        workers.into_iter().try_for_each(|w| w.join().map_err(|_| crashed())?)
    })
}

/// Receives on as many connections as the job has; returns the data bytes written.
pub(crate) fn receive(job: &Job, file: &File, listener: &TcpListener) -> io::Result<u64> {
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..job.connections {
            let (socket, _) = listener.accept()?;
            let sink = Sink::new(file.try_clone()?, job.shape);
            workers.push(scope.spawn(|| receive_blocks(job.plane, socket, sink)));
        }
        workers.into_iter().map(|w| w.join().map_err(|_| crashed())?).sum()
    })
}

fn send_blocks(job: &Job, file: &File, next: &AtomicU64, mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut block = Block::new(job.shape);
    loop {
        let offset = next.fetch_add(BLOCK as u64, Ordering::Relaxed);
        if offset >= job.size {
            return Ok(());
        }
        block.load(file, offset)?;
        let mut slices = block.slices();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let n = socket.write_vectored(left)?;
            IoSlice::advance_slices(&mut left, n);
        }
    }
}

fn receive_blocks(plane: Plane, mut socket: TcpStream, mut sink: Sink) -> io::Result<u64> {
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut filled = 0;
    loop {
        let n = socket.read(&mut buffer[filled..])?;
        filled += n;
        if plane == Plane::ThreadsGather && n > 0 && filled < BLOCK {
            continue;
        }
        let used = sink.consume(&buffer[..filled])?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if n == 0 {
            return if filled == 0 { Ok(sink.written) } else { Err(crate::torn()) };
        }
    }
}

fn crashed() -> io::Error {
    io::Error::other("a data thread panicked")
}
