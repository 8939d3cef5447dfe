//! What the network gives to plain connections: the measure for an all-reduce between hosts.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use crate::communicator::Communicator;
use crate::error::Error;
use crate::rendezvous::Patience;

/// Bytes of one write or read.
const CHUNK: usize = 1 << 20;

/// Connections of this rank with those with which it shares an all-reduce, on which nothing happens but bytes going
/// both ways at once: one thread writes and another reads, from and to memory that stays in the cache.
#[derive(Debug)]
pub(super) struct Line {
    streams: Vec<TcpStream>,
    /// What is sent again and again, and for each connection where it goes.
    sent: Vec<u8>,
    received: Vec<Vec<u8>>,
    /// Of the bytes of a buffer, those that go each way on each connection: one in this many.
    divisor: usize,
}

impl Line {
    /// Connects the ranks; none where all of them are on one host. Every rank of the group must call it.
    pub(super) fn connect(group: &mut Communicator) -> Result<Option<Self>, Error> {
        let Some((peers, shares)) = group.transport.carriers() else { return Ok(None) };
        let failed = || Error::system("connect for the measurement");
        let patience = Patience::new(group.options.deadline);
        let listener =
            TcpListener::bind(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0)).map_err(failed())?;
        let port = listener.local_addr().map_err(failed())?.port();
        let mut ports = vec![0; group.world_size()];
        group.all_gather(&[i64::from(port)], &mut ports)?;
        let mut streams = Vec::new();
        for peer in &peers {
            let Some(address) = group.transport.address(*peer).filter(|_| *peer < group.rank()) else {
                continue;
            };
            let address = SocketAddr::new(address.ip(), ports[*peer] as u16);
            streams.push(TcpStream::connect_timeout(&address, patience.limit).map_err(failed())?);
        }
        // Whoever has connected waits in the queue by now.
        group.barrier()?;
        for _ in peers.iter().filter(|peer| **peer > group.rank()) {
            streams.push(listener.accept().map_err(failed())?.0);
        }
        for stream in &streams {
            stream.set_read_timeout(Some(patience.limit)).map_err(failed())?;
            stream.set_write_timeout(Some(patience.limit)).map_err(failed())?;
        }
        // Each host reduces a part of a share and gives it back.
        let hosts = group.transport.host_count();
        let received = vec![vec![0; CHUNK]; streams.len()];
        Ok(Some(Self { streams, sent: vec![1; CHUNK], received, divisor: hosts * shares }))
    }

    /// Moves as many bytes as an all-reduce of `bytes` must.
    pub(super) fn carry(&mut self, bytes: usize) -> Result<(), Error> {
        let bytes = 2 * bytes / self.divisor;
        let sent = &self.sent;
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for (stream, received) in self.streams.iter().zip(&mut self.received) {
                threads.push(scope.spawn(move || write(stream, sent, bytes)));
                threads.push(scope.spawn(move || read(stream, received, bytes)));
            }
            for thread in threads {
                let moved = thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread broke")));
                moved.map_err(Error::system("measure the network"))?;
            }
            Ok(())
        })
    }
}

fn write(mut stream: &TcpStream, chunk: &[u8], bytes: usize) -> std::io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        left -= stream.write(&chunk[..left.min(CHUNK)])?;
    }
    Ok(())
}

fn read(mut stream: &TcpStream, chunk: &mut [u8], bytes: usize) -> std::io::Result<()> {
    let mut left = bytes;
    while left > 0 {
        match stream.read(&mut chunk[..left.min(CHUNK)])? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => left -= count,
        }
    }
    Ok(())
}
