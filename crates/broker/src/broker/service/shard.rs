//! What operator and sidecars ask about the shard itself.

use ackwell_proto::Failure;
use ackwell_proto::v1::{ConfigureRequest, ConfigureResponse, RouteRequest, RouteResponse, shard_server};
use tonic::{Request, Response, Status};

use super::Service;

#[tonic::async_trait]
impl shard_server::Shard for Service {
    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        let config = request.into_inner().config.ok_or_else(|| Failure::invalid("config is missing"))?;
        let generation = self.queues.change(&self.shard, config).await?;
        Ok(Response::new(ConfigureResponse { generation }))
    }

    async fn route(&self, request: Request<RouteRequest>) -> Result<Response<RouteResponse>, Status> {
        let config = self.queues.find(&request.into_inner().queue)?.config;
        let (generation, shard_addresses) = (config.generation, config.shard_addresses.clone());
        Ok(Response::new(RouteResponse { generation, shard_addresses }))
    }
}
