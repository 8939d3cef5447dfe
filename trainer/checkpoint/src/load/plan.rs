//! From what is asked for to what is read: pure.

use std::ops::Range;

use super::Request;
use crate::manifest::Manifest;
use crate::tensor::Tensor;

/// Bytes of one chunk of one shard that go to one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    /// Index of the shard.
    pub(super) shard: usize,
    pub(super) chunk: u64,
    /// In the shard's file.
    pub(super) offset: u64,
    /// Index of the request.
    pub(super) request: usize,
    /// In the request's bytes.
    pub(super) into: usize,
    pub(super) length: usize,
}

/// Cuts the requests, which are known to fit their tensors, along pieces and chunks; sorted as they lie in the files.
pub(super) fn plan(manifest: &Manifest, requests: &[Request<'_>]) -> Vec<Segment> {
    let mut segments = Vec::new();
    for (request, Request { tensor, range, .. }) in requests.iter().enumerate() {
        let Some(saved) = manifest.find(tensor) else { continue };
        let size = saved.tensor.data_type().size();
        let first = saved.pieces.partition_point(|piece| piece.end <= range.start);
        for piece in saved.pieces[first..].iter().take_while(|piece| piece.start < range.end) {
            let (start, end) = (range.start.max(piece.start), range.end.min(piece.end));
            let chunk_bytes = manifest.content().shards[piece.shard].chunk_bytes.bytes();
            let last = piece.offset + (end - piece.start) * size;
            let mut offset = piece.offset + (start - piece.start) * size;
            let mut into = ((start - range.start) * size) as usize;
            while offset < last {
                let chunk = offset / chunk_bytes;
                let length = (last.min((chunk + 1) * chunk_bytes) - offset) as usize;
                segments.push(Segment { shard: piece.shard, chunk, offset, request, into, length });
                offset += length as u64;
                into += length;
            }
        }
    }
    segments.sort_unstable();
    segments
}

/// The tensor of which the shard's file has the first bytes within `bytes`.
pub(super) fn first_tensor(manifest: &Manifest, shard: usize, bytes: Range<u64>) -> Option<&Tensor> {
    let pieces = manifest.content().tensors.iter().flat_map(|saved| {
        let here = saved.pieces.iter().filter(move |piece| piece.shard == shard);
        here.map(move |piece| {
            let end = piece.offset + (piece.end - piece.start) * saved.tensor.data_type().size();
            (piece.offset.max(bytes.start), end.min(bytes.end), &saved.tensor)
        })
    });
    let inside = pieces.filter(|(start, end, _)| start < end);
    inside.min_by_key(|(start, ..)| *start).map(|(.., tensor)| tensor)
}
