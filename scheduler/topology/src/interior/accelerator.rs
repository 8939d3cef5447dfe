//! What is known of GPU models.

use super::LinkKind;

/// GB/s per NVLink of a model that is not known to have any.
const UNKNOWN_NVLINK: f64 = 20.0;

/// The bandwidths of a GPU model, as NCCL's planner takes them: what a collective gets, not what is printed on
/// the box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accelerator {
    /// NVLinks of a GPU, 0 without NVLink.
    pub nvlinks: u16,
    /// GB/s per NVLink and direction.
    pub nvlink: f64,
    /// GB/s per direction over PCIe.
    pub pcie: f64,
    /// GB/s per direction between sockets.
    pub socket: f64,
    /// What in-switch reduction (NVLS) gets of the NVLink bandwidth, none where there is no such thing.
    pub nvls: Option<f64>,
    /// GB/s that the low-latency protocol reaches at most on 1, 2, and more nodes.
    pub low_latency: [f64; 3],
}

impl Accelerator {
    /// A GPU without NVLink on PCIe 4.
    pub const PCIE: Self = Self {
        nvlinks: 0,
        nvlink: 0.0,
        pcie: 24.0,
        socket: 16.0,
        nvls: None,
        low_latency: [39.0, 22.5, 19.0],
    };
    /// Tesla V100 with NVLink 2.
    pub const V100: Self = Self {
        nvlinks: 6,
        nvlink: 20.0,
        pcie: 12.0,
        socket: 10.0,
        nvls: None,
        low_latency: [39.0, 39.0, 20.4],
    };
    /// A100 with NVLink 3.
    pub const A100: Self = Self { nvlinks: 12, nvlink: 20.0, low_latency: [87.7, 22.5, 19.0], ..Self::PCIE };
    /// H100, H200 and their kin with NVLink 4.
    pub const H100: Self = Self {
        nvlinks: 18,
        nvlink: 20.6,
        pcie: 48.0,
        socket: 40.0,
        nvls: Some(0.85),
        low_latency: [141.0, 45.0, 35.0],
    };
    /// H100 on PCIe 5 without NVLink bridges.
    pub const H100_PCIE: Self = Self { nvlinks: 0, nvlink: 0.0, nvls: None, ..Self::H100 };
    /// B200, GB200 and their kin with NVLink 5.
    pub const B200: Self =
        Self { nvlink: 40.1, nvls: Some(0.74), low_latency: [282.0, 90.0, 70.0], ..Self::H100 };

    /// The model that the label `nvidia.com/gpu.product` names; a GPU on PCIe 4 when it is unknown.
    pub fn of_product(product: &str) -> Self {
        let product = product.to_ascii_uppercase();
        let is = |names: &[&str]| names.iter().any(|name| product.contains(name));
        let pcie = is(&["PCIE"]);
        if is(&["B200", "B300", "B100"]) {
            Self::B200
        } else if is(&["H100", "H200", "H800", "H20", "GH200"]) {
            if pcie || is(&["NVL"]) { Self::H100_PCIE } else { Self::H100 }
        } else if is(&["A100", "A800"]) && !pcie {
            Self::A100
        } else if is(&["V100"]) {
            if pcie { Self { nvlinks: 0, nvlink: 0.0, ..Self::V100 } } else { Self::V100 }
        } else if is(&["P100", "P40", "T4", "M40"]) {
            Self { pcie: 12.0, socket: 10.0, low_latency: [39.0, 39.0, 20.4], ..Self::PCIE }
        } else {
            Self::PCIE
        }
    }

    /// GB/s per direction and GPU over all its NVLinks.
    pub fn nvlink_total(&self) -> f64 {
        f64::from(self.nvlinks) * self.nvlink
    }

    /// MB/s per direction over a path.
    pub(super) fn megabytes(&self, kind: LinkKind) -> u32 {
        // Each bridge on the way costs a little, so that nearer is never worse.
        let between = |share: f64| self.socket + (self.pcie - self.socket) * share;
        let gigabytes = match kind {
            LinkKind::NvLink(links) if self.nvlinks == 0 => f64::from(links) * UNKNOWN_NVLINK,
            LinkKind::NvLink(links) => f64::from(links.min(self.nvlinks)) * self.nvlink,
            LinkKind::Pix => self.pcie,
            LinkKind::Pxb => between(0.8),
            LinkKind::Phb => between(0.4),
            LinkKind::Node => between(0.2),
            LinkKind::Sys => self.socket,
        };
        (gigabytes * 1000.0).round() as u32
    }
}
