//! Pods that copy what shards have into a volume, or from there. Such a pod is made for what ordered it, belongs to it, and is made
//! again when it ended before it was done: what it does is safe to repeat.
//!
//! It shows brokers a certificate of its own, by which it may do this and nothing else.

mod build;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ackwell_api::{BackupPlace, Queue, names};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, ResourceExt};

pub(super) use self::state::Run;
use super::Context;
use super::apply::{ApplyError, check_owner, request};
use super::error::Class;
use crate::certificates::SecretData;
use crate::certificates::broker::issue_for;
use crate::clock;

/// How long its certificate is good: as long as a copy may take. A pod that takes longer fails, and the next one has another.
const LIFE: Duration = Duration::from_hours(48);

/// Characters of a task's name that leave room for the rest of its pod's.
const MAX_TASK_NAME: usize = 200;

/// What such a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Backup,
    Restore,
}

/// A copy that was ordered.
pub(super) struct Program<'a> {
    pub(super) kind: Kind,
    /// Whose shards.
    pub(super) queue: &'a Queue,
    pub(super) shards: u32,
    pub(super) place: &'a BackupPlace,
    /// Name and uid of what ordered it.
    pub(super) owner: OwnerReference,
}

impl Kind {
    /// The command of the daemon, and what brokers know it by.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

impl Program<'_> {
    /// Of its pod, and of the Secret with its certificate.
    pub(super) fn name(&self) -> String {
        match self.kind {
            Kind::Backup if self.owner.name.len() > MAX_TASK_NAME => names::backup(&self.owner.uid),
            Kind::Backup => names::backup(&self.owner.name),
            Kind::Restore => names::restore(&self.owner.name),
        }
    }

    fn namespace(&self) -> String {
        self.queue.namespace().unwrap_or_default()
    }

    /// The name in its certificate.
    fn certified(&self) -> String {
        names::program_name(&self.namespace(), &self.queue.name_any(), self.kind.word())
    }
}

impl Context {
    /// How far the copy is; has it begun, and begun anew. What only a person can put right is what it waits for.
    pub(super) async fn copy(&self, program: &Program<'_>) -> Result<Run, ApplyError> {
        match self.go_on(program).await {
            Err(error) if error.class() == Class::User => Ok(Run::Starting(error.to_string())),
            result => result,
        }
    }

    async fn go_on(&self, program: &Program<'_>) -> Result<Run, ApplyError> {
        let desired = build::pod(program, &self.options.broker);
        let Some(live) = self.pod_of(program, &desired).await? else {
            return self.begin_copy(program, &desired).await;
        };
        if live.metadata.deletion_timestamp.is_some() {
            return Ok(Run::Starting(format!("an earlier pod {} is still being deleted", program.name())));
        }
        let run = Run::of(&live);
        if run.is_to_be_tried_again(&live, &clock::now()) {
            self.applier().delete(&live).await?;
        }
        Ok(run)
    }

    /// Ends it, wherever it is.
    pub(super) async fn end_copy(&self, program: &Program<'_>) -> Result<(), ApplyError> {
        let desired = build::pod(program, &self.options.broker);
        if let Some(live) = self.pod_of(program, &desired).await? {
            self.applier().delete(&live).await?;
        }
        Ok(())
    }

    /// It is in no cache: there is none most of the time.
    async fn pod_of(&self, program: &Program<'_>, desired: &Pod) -> Result<Option<Pod>, ApplyError> {
        let pods = self.pods_of(program);
        let live = request("read", desired, pods.get_opt(&program.name())).await?;
        if let Some(live) = &live {
            check_owner(desired, live)?;
        }
        Ok(live)
    }

    async fn begin_copy(&self, program: &Program<'_>, desired: &Pod) -> Result<Run, ApplyError> {
        let authority = self.options.authority.content();
        let issued = issue_for(&authority, &[program.certified()], clock::now().0, LIFE);
        let certificate = match issued {
            Ok(Some(certificate)) => certificate,
            Ok(None) => {
                return Ok(Run::Starting("there is no authority yet to sign its certificate".to_owned()));
            }
            Err(error) => return Ok(Run::Starting(format!("its certificate cannot be signed: {error}"))),
        };
        // Refuses one that belongs to something else.
        self.applier().secret_data(&build::secret(program, SecretData::new())).await?;
        self.applier().write_secret(&build::secret(program, certificate)).await?;
        let (pods, parameters) = (self.pods_of(program), PostParams::default());
        match request("make", desired, pods.create(&parameters, desired)).await {
            Ok(_) => {}
            // It was made by who did not hear of it.
            Err(ApplyError::Request { source, .. }) if is_there(&source) => {}
            Err(error) => return Err(error),
        }
        Ok(Run::Starting(format!("its pod {} starts", program.name())))
    }

    fn pods_of(&self, program: &Program<'_>) -> Api<Pod> {
        Api::namespaced(self.options.client.clone(), &program.namespace())
    }
}

fn is_there(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}
