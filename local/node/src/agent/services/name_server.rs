//! The pods' name server: knows the cluster's names and asks the machine's own servers for all others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::agent::context::Context;
use crate::network::Sockets;
use crate::services::message::{self, Answer, Code, Data, Question, Record, kind};
use crate::services::resolver;
use crate::services::zone::{self, Verdict};

/// Where pods find it, as in other clusters.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const PORT: u16 = 53;
/// So many questions are passed on at once, and so many connections are open.
const ROOM: usize = 256;
/// Another server answers within this time or is left out.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many of the machine's servers are asked.
const SERVERS: usize = 3;
/// A connection without a question is closed.
const IDLE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(200);
const LARGEST: usize = 65_535;
const MACHINE: &str = "/etc/resolv.conf";

/// Answers until dropped. Without a network for pods there is no server.
pub(super) async fn serve(context: &Arc<Context>) {
    let Some(network) = &context.network else { return };
    let (socket, listener) = loop {
        match open(network.sockets()).await {
            Ok(open) => break open,
            Err(error) => {
                tracing::debug!(%error, "the pods' name server cannot listen; trying again");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let room = Arc::new(Semaphore::new(ROOM));
    tokio::join!(serve_datagrams(context, socket, room.clone()), serve_connections(context, listener, room));
}

async fn open(sockets: &Sockets) -> io::Result<(UdpSocket, TcpListener)> {
    let address = SocketAddrV4::new(ADDRESS, PORT);
    Ok((sockets.bind(address).await?, sockets.listen(address).await?))
}

async fn serve_datagrams(context: &Arc<Context>, socket: UdpSocket, room: Arc<Semaphore>) {
    let socket = Arc::new(socket);
    let mut passed_on = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, client) = tokio::select! {
            Some(_) = passed_on.join_next(), if !passed_on.is_empty() => continue,
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(_) => continue,
            },
        };
        let bytes = &buffer[..length];
        match consider(context, bytes) {
            Considered::Known(question, answer) => {
                let _ = socket.send_to(&message::encode(&question, &answer, question.limit), client).await;
            }
            Considered::PassOn(question, alias) => {
                // A pod that asks too much at once asks again.
                let Ok(permit) = room.clone().try_acquire_owned() else { continue };
                let (socket, bytes) = (socket.clone(), bytes.to_vec());
                passed_on.spawn(async move {
                    let limit = question.limit;
                    let answer = pass_on(&question, alias, &bytes, Way::Datagram, limit).await;
                    let _ = socket.send_to(&answer, client).await;
                    drop(permit);
                });
            }
            Considered::Noise => {}
        }
    }
}

async fn serve_connections(context: &Arc<Context>, listener: TcpListener, room: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(RETRY).await;
                    continue;
                };
                let Ok(permit) = room.clone().try_acquire_owned() else { continue };
                let context = context.clone();
                connections.spawn(async move {
                    let _ = serve_connection(&context, stream).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_connection(context: &Context, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let bytes = timeout(IDLE, read_message(&mut stream)).await??;
        let answer = match consider(context, &bytes) {
            Considered::Known(question, answer) => message::encode(&question, &answer, LARGEST),
            Considered::PassOn(question, alias) => {
                pass_on(&question, alias, &bytes, Way::Connection, LARGEST).await
            }
            Considered::Noise => return Ok(()),
        };
        write_message(&mut stream, &answer).await?;
    }
}

async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write_message(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut framed = (bytes.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(bytes);
    stream.write_all(&framed).await
}

enum Considered {
    /// The answer is known here.
    Known(Question, Answer),
    /// Others know it; perhaps under another name.
    PassOn(Question, Option<String>),
    /// No question at all.
    Noise,
}

fn consider(context: &Context, bytes: &[u8]) -> Considered {
    let Ok(question) = message::parse(bytes) else { return Considered::Noise };
    if question.operation != 0 {
        return Considered::Known(question, Answer::empty(Code::NotImplemented));
    }
    if question.name.is_empty() && question.class == 0 {
        return Considered::Known(question, Answer::empty(Code::FormatError));
    }
    match zone::look_up(&context.services.directory(), &question.name, question.kind) {
        Verdict::Answer(answer) => Considered::Known(question, answer),
        Verdict::Alias(target) => Considered::PassOn(question, Some(target)),
        // Nobody outside knows a name without a dot, and whoever waits for a service to appear wants to hear soon.
        Verdict::Elsewhere if !question.name.contains('.') && !question.name.is_empty() => {
            Considered::Known(question, Answer::empty(Code::NoSuchName))
        }
        Verdict::Elsewhere => Considered::PassOn(question, None),
    }
}

#[derive(Clone, Copy)]
enum Way {
    Datagram,
    Connection,
}

/// Asks the machine's servers, and answers that it failed if none of them does.
async fn pass_on(
    question: &Question,
    alias: Option<String>,
    bytes: &[u8],
    way: Way,
    limit: usize,
) -> Vec<u8> {
    let machine = fs_err::read_to_string(MACHINE).unwrap_or_default();
    let asked = match &alias {
        None => bytes.to_vec(),
        Some(target) if matches!(question.kind, kind::A | kind::AAAA) => {
            message::question(rand::random(), target, question.kind)
        }
        Some(target) => return message::encode(question, &alias_answer(question, target, Vec::new()), limit),
    };
    for server in resolver::name_servers(&machine).into_iter().take(SERVERS) {
        let Ok(Ok(answer)) = timeout(PATIENCE, ask(server, &asked, way)).await else { continue };
        let Some(target) = &alias else { return answer };
        let Ok(found) = message::addresses(&answer) else { continue };
        return message::encode(question, &alias_answer(question, target, found), limit);
    }
    message::encode(question, &Answer::empty(Code::ServerFailure), limit)
}

fn alias_answer(question: &Question, target: &str, found: Vec<Data>) -> Answer {
    let alias = Record { name: question.name.clone(), data: Data::Alias(target.to_owned()) };
    let found = found.into_iter().map(|data| Record { name: target.to_owned(), data });
    Answer { records: std::iter::once(alias).chain(found).collect(), ..Answer::empty(Code::Success) }
}

async fn ask(server: IpAddr, bytes: &[u8], way: Way) -> io::Result<Vec<u8>> {
    let address = SocketAddr::new(server, PORT);
    match way {
        Way::Connection => {
            let mut stream = TcpStream::connect(address).await?;
            write_message(&mut stream, bytes).await?;
            read_message(&mut stream).await
        }
        Way::Datagram => {
            let own: SocketAddr =
                if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
            let socket = UdpSocket::bind(own).await?;
            socket.connect(address).await?;
            socket.send(bytes).await?;
            let mut buffer = vec![0; LARGEST];
            loop {
                let length = socket.recv(&mut buffer).await?;
                // Somebody else may guess where the answer is awaited, but not which it is.
                if buffer[..length].starts_with(&bytes[..2]) {
                    buffer.truncate(length);
                    return Ok(buffer);
                }
            }
        }
    }
}
