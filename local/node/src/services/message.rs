//! Questions and answers of the domain name system as bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Types of records.
pub(crate) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const ANY: u16 = 255;
}

/// Codes of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Success = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

const INTERNET: u16 = 1;
const HEADER: usize = 12;
/// Without the extension for larger ones an answer has at most this many bytes.
const SMALL: usize = 512;
/// No answer over UDP is larger.
const LARGE: usize = 4096;
/// Seconds for which an answer may be kept.
const LIFETIME: u32 = 5;
const RESPONSE: u16 = 1 << 15;
const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RECURSION_AVAILABLE: u16 = 1 << 7;

/// A message that is no question we understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a question of the domain name system")]
pub(crate) struct Malformed;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) id: u16,
    /// Zero is a plain question.
    pub(crate) operation: u16,
    recursion_desired: bool,
    /// In lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) class: u16,
    /// The question as it came, to be repeated in the answer.
    raw: Vec<u8>,
    /// How many bytes an answer over UDP may have.
    pub(crate) limit: usize,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(Ipv4Addr),
    LongAddress(Ipv6Addr),
    Alias(String),
    Pointer(String),
    Service {
        port: u16,
        target: String,
    },
    /// Who is responsible, and how long a missing name stays missing.
    Authority,
}

impl Data {
    fn kind(&self) -> u16 {
        match self {
            Self::Address(_) => kind::A,
            Self::LongAddress(_) => kind::AAAA,
            Self::Alias(_) => kind::CNAME,
            Self::Pointer(_) => kind::PTR,
            Self::Service { .. } => kind::SRV,
            Self::Authority => kind::SOA,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Address(address) => out.extend_from_slice(&address.octets()),
            Self::LongAddress(address) => out.extend_from_slice(&address.octets()),
            Self::Alias(name) | Self::Pointer(name) => encode_name(name, out),
            Self::Service { port, target } => {
                for number in [0, 100, *port] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
                encode_name(target, out);
            }
            Self::Authority => {
                encode_name(&format!("ns.dns.{}", super::DOMAIN), out);
                encode_name(&format!("hostmaster.{}", super::DOMAIN), out);
                for number in [1, 7200, 1800, 86400, LIFETIME] {
                    out.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
    }
}

/// A record of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) data: Data,
}

/// An answer without its question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: Code,
    pub(crate) records: Vec<Record>,
    pub(crate) authority: Vec<Record>,
    pub(crate) further: Vec<Record>,
}

impl Answer {
    /// One that only says how it went.
    pub(crate) fn empty(code: Code) -> Self {
        Self { code, records: Vec::new(), authority: Vec::new(), further: Vec::new() }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> Result<u16, Malformed> {
        let bytes = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<2>()).ok_or(Malformed)?;
        self.at += 2;
        Ok(u16::from_be_bytes(*bytes))
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.at += count;
        if self.at <= self.bytes.len() { Ok(()) } else { Err(Malformed) }
    }

    /// A name without pointers to other names, as it is in a question.
    fn name(&mut self) -> Result<String, Malformed> {
        let mut name = String::new();
        loop {
            let length = usize::from(*self.bytes.get(self.at).ok_or(Malformed)?);
            self.at += 1;
            match length {
                0 => return Ok(name),
                64.. => return Err(Malformed),
                _ => {}
            }
            let label = self.bytes.get(self.at..self.at + length).ok_or(Malformed)?;
            self.at += length;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&String::from_utf8_lossy(label).to_lowercase());
            if name.len() > 255 {
                return Err(Malformed);
            }
        }
    }

    fn skip_name(&mut self) -> Result<(), Malformed> {
        loop {
            let length = *self.bytes.get(self.at).ok_or(Malformed)?;
            match length {
                0 => return self.skip(1),
                0xc0.. => return self.skip(2),
                64.. => return Err(Malformed),
                _ => self.skip(1 + usize::from(length))?,
            }
        }
    }
}

/// Reads a question.
pub(crate) fn parse(bytes: &[u8]) -> Result<Question, Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    let (id, flags) = (reader.number()?, reader.number()?);
    let counts = [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
    if flags & RESPONSE != 0 || counts[0] != 1 {
        return Err(Malformed);
    }
    let name = reader.name()?;
    let (kind, class) = (reader.number()?, reader.number()?);
    let raw = bytes[HEADER..reader.at].to_vec();
    let extended = (counts[1], counts[2]) == (0, 0) && counts[3] > 0;
    let limit = if extended { extended_limit(&mut reader).unwrap_or(SMALL) } else { SMALL };
    let recursion_desired = flags & RECURSION_DESIRED != 0;
    Ok(Question { id, operation: (flags >> 11) & 15, recursion_desired, name, kind, class, raw, limit })
}

fn extended_limit(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    reader.skip_name()?;
    let (kind, size) = (reader.number()?, reader.number()?);
    if kind == kind::OPT { Ok(usize::from(size).clamp(SMALL, LARGE)) } else { Err(Malformed) }
}

/// A question as bytes, for another server.
pub(crate) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = Vec::new();
    for number in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    encode_name(name, &mut out);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&INTERNET.to_be_bytes());
    out
}

/// The addresses that another server's answer holds.
pub(crate) fn addresses(bytes: &[u8]) -> Result<Vec<Data>, Malformed> {
    let mut reader = Reader { bytes, at: 4 };
    let (questions, records) = (reader.number()?, reader.number()?);
    reader.skip(4)?;
    for _ in 0..questions {
        reader.skip_name()?;
        reader.skip(4)?;
    }
    let mut found = Vec::new();
    for _ in 0..records {
        reader.skip_name()?;
        let kind = reader.number()?;
        reader.skip(6)?;
        let length = usize::from(reader.number()?);
        let begin = reader.at;
        reader.skip(length)?;
        let data = &bytes[begin..reader.at];
        match (kind, <[u8; 4]>::try_from(data), <[u8; 16]>::try_from(data)) {
            (kind::A, Ok(address), _) => found.push(Data::Address(address.into())),
            (kind::AAAA, _, Ok(address)) => found.push(Data::LongAddress(address.into())),
            _ => {}
        }
    }
    Ok(found)
}

/// The answer as bytes: at most `limit`, else without records and marked as cut.
pub(crate) fn encode(question: &Question, answer: &Answer, limit: usize) -> Vec<u8> {
    let whole = encode_all(question, answer, 0);
    if whole.len() <= limit {
        return whole;
    }
    encode_all(question, &Answer::empty(answer.code), TRUNCATED)
}

fn encode_all(question: &Question, answer: &Answer, flags: u16) -> Vec<u8> {
    let recursion = if question.recursion_desired { RECURSION_DESIRED } else { 0 };
    let flags = flags | RESPONSE | AUTHORITATIVE | RECURSION_AVAILABLE | recursion | answer.code as u16;
    let sections = [&answer.records, &answer.authority, &answer.further];
    let mut out = Vec::with_capacity(SMALL);
    out.extend_from_slice(&question.id.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&1_u16.to_be_bytes());
    for section in sections {
        out.extend_from_slice(&(section.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(&question.raw);
    for record in sections.into_iter().flatten() {
        if record.name == question.name {
            // The name stands in the question already.
            out.extend_from_slice(&[0xc0, HEADER as u8]);
        } else {
            encode_name(&record.name, &mut out);
        }
        out.extend_from_slice(&record.data.kind().to_be_bytes());
        out.extend_from_slice(&INTERNET.to_be_bytes());
        out.extend_from_slice(&LIFETIME.to_be_bytes());
        let mut data = Vec::new();
        record.data.encode(&mut data);
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(&data);
    }
    out
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_repeats_its_question_and_is_cut_where_it_is_too_long() {
        let asked = parse(&question(7, "Web.team", kind::A)).unwrap();
        assert_eq!((asked.id, asked.name.as_str(), asked.kind, asked.limit), (7, "web.team", kind::A, 512));
        let record = |number: u8| Record {
            name: "web.team".to_owned(),
            data: Data::Address(Ipv4Addr::new(10, 0, 0, number)),
        };
        let mut answer = Answer::empty(Code::Success);
        answer.records = vec![record(1), record(2)];
        let bytes = encode(&asked, &answer, 512);
        assert_eq!(addresses(&bytes).unwrap(), [record(1).data, record(2).data]);
        answer.records = (0..100).map(record).collect();
        let bytes = encode(&asked, &answer, 512);
        assert_eq!((bytes.len() <= 512, bytes[2] & 2), (true, 2), "marked as cut");
        assert_eq!(addresses(&encode(&asked, &answer, usize::MAX)).unwrap().len(), 100);
    }

    #[test]
    fn a_larger_answer_is_allowed_by_the_extension() {
        let mut bytes = question(7, "web", kind::A);
        bytes[11] = 1;
        bytes.extend_from_slice(&[0, 0, kind::OPT as u8, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(parse(&bytes).unwrap().limit, 4096);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_badly(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (parse(&bytes), addresses(&bytes));
        }

        #[test]
        fn names_come_back(labels in prop::collection::vec("[a-z0-9_-]{1,20}", 1..6)) {
            let name = labels.join(".");
            prop_assert_eq!(parse(&question(1, &name, kind::SRV)).unwrap().name, name);
        }
    }
}
