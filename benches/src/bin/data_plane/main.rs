//! Data plane, measured: blocking threads against tokio tasks.
//!
//! Two processes move one file over loopback TCP with the frames of [`frames`]; the program starts
//! itself again as the receiver. `data_plane [--dir DIR] [--runs DIR] [--rounds N] [--mib N]
//! [--target kept|fresh]`. A kept target is overwritten in place: in a virtual machine fresh pages
//! cost host faults, by a factor of two more or less from one run to the next, which hides the rest.

mod frames;
mod tasks;
mod threads;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use fcp_benches::machine::Machine;
use frames::{BLOCK, Shape};
use rustix::time::{ClockId, clock_gettime};

const USAGE: &str =
    "usage: data_plane [--dir DIR] [--runs DIR] [--rounds N] [--mib N] [--target kept|fresh]";
const HEADER: &str =
    "round,shape,plane,connections,bytes,seconds,mb_per_s,cpu_sender_s,cpu_receiver_s";
/// Steps coprime to the number of jobs, one a round, so that no job always follows the same one.
const STRIDES: [usize; 6] = [1, 5, 7, 11, 13, 17];
const SHAPES: [(&str, Shape); 2] = [
    ("large", Shape { frame: 60 << 10, call_per_frame: false }),
    ("small", Shape { frame: 8 << 10, call_per_frame: true }),
];

/// Who does the work of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plane {
    Threads,
    /// Threads that let a whole block gather before they check and write it, as the tasks with
    /// `spawn_blocking` must: it tells the effect of gathering from that of the pool.
    ThreadsGather,
    TokioInline,
    TokioBlocking,
}

impl Plane {
    const ALL: [(&str, Self); 4] = [
        ("threads", Self::Threads),
        ("threads-gather", Self::ThreadsGather),
        ("tokio-inline", Self::TokioInline),
        ("tokio-spawn_blocking", Self::TokioBlocking),
    ];
}

/// One measured transfer.
#[derive(Debug, Clone)]
struct Job {
    plane: Plane,
    shape: Shape,
    connections: usize,
    size: u64,
    /// The names above, for the receiver's command line and the table.
    names: (&'static str, &'static str),
}

impl Job {
    fn all(size: u64) -> Vec<Self> {
        let mut jobs = Vec::new();
        for (shape_name, shape) in SHAPES {
            for connections in [1, 2, 4] {
                for (plane_name, plane) in Plane::ALL {
                    jobs.push(Self {
                        plane,
                        shape,
                        connections,
                        size,
                        names: (shape_name, plane_name),
                    });
                }
            }
        }
        jobs
    }
}

/// What one transfer took.
#[derive(Debug, Clone, Copy)]
struct Figures {
    seconds: f64,
    cpu_sender: f64,
    cpu_receiver: f64,
}

/// A connection ended in the middle of a frame.
fn torn() -> io::Error {
    io::Error::other("the connection ended inside a frame")
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, index, size, target] = args.as_slice()
        && word == "receive"
    {
        return receive(number(index)?, number(size)? as u64, Path::new(target));
    }
    let (mut dir, mut runs) =
        (PathBuf::from("/dev/shm/fcp-data-plane"), PathBuf::from("benches/runs"));
    let (mut rounds, mut mib, mut fresh) = (5, 2048, false);
    for pair in args.chunks(2) {
        match pair {
            [flag, value] if flag == "--dir" => dir = value.into(),
            [flag, value] if flag == "--runs" => runs = value.into(),
            [flag, value] if flag == "--rounds" => rounds = number(value)?,
            [flag, value] if flag == "--target" => fresh = value == "fresh",
            [flag, value] if flag == "--mib" => mib = number(value)?,
            _ => return Err(io::Error::other(USAGE)),
        }
    }
    fs::create_dir_all(&dir)?;
    let done = measure(&dir, rounds, (mib * BLOCK) as u64, fresh)
        .and_then(|rows| report(&runs, &rows, fresh));
    fs::remove_dir_all(&dir)?;
    done
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| io::Error::other(format!("{text}: not a number. {USAGE}")))
}

type Row = (usize, Job, Figures);

/// Round 0 is the warm-up: its copies are compared and its figures dropped.
fn measure(dir: &Path, rounds: usize, size: u64, fresh: bool) -> io::Result<Vec<Row>> {
    let source = dir.join("source");
    let target = dir.join("target");
    make_source(&source, size)?;
    let jobs = Job::all(size);
    let mut rows = Vec::new();
    for round in 0..=rounds {
        for turn in 0..jobs.len() {
            let index = (turn * STRIDES[round % STRIDES.len()] + round) % jobs.len();
            let figures = transfer(&jobs[index], index, &source, &target)?;
            if round == 0 {
                compare(&source, &target)?;
            } else {
                rows.push((round, jobs[index].clone(), figures));
            }
            if fresh || round == 0 && turn + 1 < jobs.len() {
                fs::remove_file(&target)?;
            }
        }
        eprintln!("round {round} of {rounds} done");
    }
    Ok(rows)
}

fn transfer(job: &Job, index: usize, source: &Path, target: &Path) -> io::Result<Figures> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["receive", &index.to_string(), &job.size.to_string()])
        .arg(target)
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or_else(|| io::Error::other("the receiver has no output"))?;
    let mut lines = BufReader::new(out).lines();
    let mut next = || lines.next().unwrap_or_else(|| Err(io::Error::other("the receiver died")));
    let port: u16 = next()?.parse().map_err(io::Error::other)?;
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let file = File::open(source)?;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    match job.plane {
        Plane::Threads | Plane::ThreadsGather => threads::send(job, &file, to)?,
        Plane::TokioInline | Plane::TokioBlocking => tasks::send(job, &file, to)?,
    }
    let cpu_receiver = next()?.parse().map_err(io::Error::other)?;
    let figures = Figures {
        seconds: start.elapsed().as_secs_f64(),
        cpu_sender: cpu_seconds() - cpu,
        cpu_receiver,
    };
    child.wait()?;
    Ok(figures)
}

/// The other process: says its port, receives, says its CPU seconds.
fn receive(index: usize, size: u64, target: &Path) -> io::Result<()> {
    let jobs = Job::all(size);
    let job = jobs.get(index).ok_or_else(|| io::Error::other("no such job"))?;
    let file = File::options().write(true).create(true).truncate(false).open(target)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut out = io::stdout();
    writeln!(out, "{}", listener.local_addr()?.port())?;
    let written = match job.plane {
        Plane::Threads | Plane::ThreadsGather => threads::receive(job, &file, &listener)?,
        Plane::TokioInline | Plane::TokioBlocking => tasks::receive(job, &file, listener)?,
    };
    if written != size {
        return Err(io::Error::other(format!("{written} of {size} bytes arrived")));
    }
    writeln!(out, "{:.6}", cpu_seconds())
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn make_source(path: &Path, size: u64) -> io::Result<()> {
    let mut out = File::create(path)?;
    let mut block = vec![0; BLOCK];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..size / BLOCK as u64 {
        for word in block.as_chunks_mut::<8>().0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        out.write_all(&block)?;
    }
    Ok(())
}

fn compare(source: &Path, target: &Path) -> io::Result<()> {
    if Command::new("cmp").arg(source).arg(target).status()?.success() {
        return Ok(());
    }
    Err(io::Error::other("the copy differs"))
}

fn report(runs: &Path, rows: &[Row], fresh: bool) -> io::Result<()> {
    let machine = Machine::read();
    let dir = machine.run_dir(runs, "data-plane")?;
    let mut csv = format!("{HEADER}\n");
    for (round, job, f) in rows {
        let (shape, plane) = job.names;
        let rate = job.size as f64 / f.seconds / 1e6;
        csv += &format!(
            "{round},{shape},{plane},{},{},{:.4},{rate:.0},{:.3},{:.3}\n",
            job.connections, job.size, f.seconds, f.cpu_sender, f.cpu_receiver
        );
    }
    fs::write(dir.join(if fresh { "raw-fresh-target.csv" } else { "raw.csv" }), csv)?;
    let table = table(rows);
    println!("{table}");
    if fresh {
        return Ok(());
    }
    let text =
        format!("# Data plane: threads against tokio tasks\n\n{}\n{table}", machine.markdown());
    fs::write(dir.join("setup.md"), text)
}

fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| shape | connections | plane | MB/s, median | min-max | CPU s, both ends |\n|---|---|---|---|---|---|\n",
    );
    let Some((_, first, _)) = rows.first() else { return table };
    for job in Job::all(first.size) {
        let mine = rows
            .iter()
            .filter(|(_, j, _)| j.names == job.names && j.connections == job.connections);
        let (mut rates, mut cpus): (Vec<f64>, Vec<f64>) = mine
            .map(|(_, _, f)| (job.size as f64 / f.seconds / 1e6, f.cpu_sender + f.cpu_receiver))
            .unzip();
        rates.sort_by(f64::total_cmp);
        cpus.sort_by(f64::total_cmp);
        let (Some(low), Some(high)) = (rates.first(), rates.last()) else { continue };
        table += &format!(
            "| {} | {} | {} | {:.0} | {low:.0}-{high:.0} | {:.2} |\n",
            job.names.0,
            job.connections,
            job.names.1,
            rates[rates.len() / 2],
            cpus[cpus.len() / 2]
        );
    }
    table
}
