//! The data plane of tokio tasks: async sockets on two workers, file calls inside the task or by `spawn_blocking`.

use std::fs::File;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::frames::{BLOCK, Block, RECEIVE_BUFFER, Sink};
use crate::{Job, Plane};

/// Sends the file over the job's connections, each taking the next block that nobody has.
pub(crate) fn send(job: &Job, file: &File, to: SocketAddr) -> io::Result<()> {
    let file = Arc::new(file.try_clone()?);
    let next = Arc::new(AtomicU64::new(0));
    runtime()?.block_on(async {
        let workers: Vec<_> = (0..job.connections)
            .map(|_| tokio::spawn(send_blocks(job.clone(), file.clone(), next.clone(), to)))
            .collect();
        join_all(workers).await.map(drop)
    })
}

/// Receives on as many connections as the job has; returns the data bytes written.
pub(crate) fn receive(job: &Job, file: &File, listener: TcpListener) -> io::Result<u64> {
    listener.set_nonblocking(true)?;
    runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut workers = Vec::new();
        for _ in 0..job.connections {
            let (socket, _) = listener.accept().await?;
            let sink = Sink::new(file.try_clone()?, job.shape);
            workers.push(tokio::spawn(receive_blocks(job.plane, socket, sink)));
        }
        Ok(join_all(workers).await?.into_iter().sum())
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build()
}

async fn join_all<T>(workers: Vec<JoinHandle<io::Result<T>>>) -> io::Result<Vec<T>> {
    let mut results = Vec::new();
    for worker in workers {
        results.push(worker.await??);
    }
    Ok(results)
}

async fn send_blocks(
    job: Job,
    file: Arc<File>,
    next: Arc<AtomicU64>,
    to: SocketAddr,
) -> io::Result<()> {
    let mut socket = TcpStream::connect(to).await?;
    socket.set_nodelay(true)?;
    let mut block = Block::new(job.shape);
    loop {
        let offset = next.fetch_add(BLOCK as u64, Ordering::Relaxed);
        if offset >= job.size {
            return Ok(());
        }
        block = load(job.plane, block, &file, offset).await?;
        let mut slices = block.slices();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let n = socket.write_vectored(left).await?;
            IoSlice::advance_slices(&mut left, n);
        }
    }
}

async fn load(plane: Plane, mut block: Block, file: &Arc<File>, at: u64) -> io::Result<Block> {
    if plane == Plane::TokioInline {
        block.load(file, at)?;
        return Ok(block);
    }
    let file = file.clone();
    spawn_blocking(move || block.load(&file, at).map(|()| block)).await?
}

async fn receive_blocks(plane: Plane, mut socket: TcpStream, mut sink: Sink) -> io::Result<u64> {
    let mut buffer = vec![0; RECEIVE_BUFFER];
    let mut filled = 0;
    loop {
        let n = socket.read(&mut buffer[filled..]).await?;
        filled += n;
        // A trip to the blocking pool is worth it for a whole block only.
        if plane == Plane::TokioBlocking && n > 0 && filled < BLOCK {
            continue;
        }
        let used;
        (buffer, sink, used) = consume(plane, buffer, filled, sink).await?;
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if n == 0 {
            return if filled == 0 { Ok(sink.written) } else { Err(crate::torn()) };
        }
    }
}

async fn consume(
    plane: Plane,
    buffer: Vec<u8>,
    filled: usize,
    mut sink: Sink,
) -> io::Result<(Vec<u8>, Sink, usize)> {
    let work = move || {
        let used = sink.consume(&buffer[..filled])?;
        Ok((buffer, sink, used))
    };
    if plane == Plane::TokioInline { work() } else { spawn_blocking(work).await? }
}
