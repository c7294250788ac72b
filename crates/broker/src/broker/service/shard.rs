//! What operator and sidecars ask about the shard itself.

use ackwell_proto::Failure;
use ackwell_proto::v1::{ConfigureRequest, ConfigureResponse, RouteRequest, RouteResponse, shard_server};
use tonic::{Request, Response, Status};

use super::{Service, audit};
use crate::broker::access::{Caller, Verb};

#[tonic::async_trait]
impl shard_server::Shard for Service {
    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        let caller = Caller::of(&request);
        let config = request.into_inner().config.ok_or_else(|| Failure::invalid("config is missing"))?;
        let name = format!("{}/{}", config.namespace, config.name);
        let allowed = self.queues.allow(&caller, Verb::Configure, &name)?;
        let generation = self.queues.add(&self.shard, config).await?;
        audit::configured(&allowed, generation);
        Ok(Response::new(ConfigureResponse { generation }))
    }

    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let caller = Caller::of(&request);
        let config = self.queues.allow(&caller, Verb::Look, &request.into_inner().queue)?.served.config;
        let (generation, shard_addresses) = (config.generation, config.shard_addresses.clone());
        Ok(Response::new(RouteResponse { generation, shard_addresses }))
    }
}
