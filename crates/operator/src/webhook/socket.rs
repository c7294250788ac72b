//! A folder that the sidecar and the other containers of a pod share, with a UNIX socket in it.

use ackwell_api::names::SOCKET_ANNOTATION;
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, Pod, PodSpec, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use super::Refusal;

const VOLUME: &str = "ackwell-socket";
/// Not below the folder of what the sidecar reads, which is read-only.
const FOLDER: &str = "/var/run/ackwell-socket";
pub(super) const PATH: &str = "/var/run/ackwell-socket/sidecar.sock";
/// A socket takes none of it.
const SIZE: &str = "1Mi";

/// Whether the annotation asks for it.
pub fn requested_socket(pod: &Pod) -> Result<bool, Refusal> {
    match pod.annotations().get(SOCKET_ANNOTATION).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Refusal::Socket(other.to_owned())),
    }
}

pub(super) fn volume() -> Volume {
    let size_limit = Some(Quantity(SIZE.to_owned()));
    let empty_dir = Some(EmptyDirVolumeSource { size_limit, ..EmptyDirVolumeSource::default() });
    Volume { name: VOLUME.to_owned(), empty_dir, ..Volume::default() }
}

/// Of the sidecar, or of an application: that one only connects, and cannot put another socket in its place.
pub(super) fn mount(is_sidecar: bool) -> VolumeMount {
    VolumeMount {
        name: VOLUME.to_owned(),
        mount_path: FOLDER.to_owned(),
        read_only: (!is_sidecar).then_some(true),
        ..VolumeMount::default()
    }
}

pub(super) fn is_mounted(container: &Container) -> bool {
    container.volume_mounts.iter().flatten().any(|mount| mount.name == VOLUME)
}

pub(super) fn has_volume(spec: &PodSpec) -> bool {
    spec.volumes.iter().flatten().any(|volume| volume.name == VOLUME)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod that means something else by it is refused where its author sees it.
    #[test]
    fn annotation_is_true_or_false() {
        let requested = |value: &str| {
            let mut pod = Pod::default();
            pod.annotations_mut().insert(SOCKET_ANNOTATION.to_owned(), value.to_owned());
            requested_socket(&pod)
        };
        assert_eq!(requested_socket(&Pod::default()), Ok(false));
        assert_eq!([requested("true"), requested("false")], [Ok(true), Ok(false)]);
        for wrong in ["yes", "", "/tmp/socket"] {
            let refusal = requested(wrong).unwrap_err().to_string();
            assert!(refusal.contains(SOCKET_ANNOTATION) && refusal.contains("\"true\""), "{refusal}");
        }
    }
}
