import grpc
from ackwell.v1.message_pb2 import Message
from ackwell.v1.queues_pb2 import Ack, ReceiveRequest, SendRequest, Settlement, SettleRequest
from ackwell.v1.queues_pb2_grpc import QueuesStub

queues = QueuesStub(grpc.insecure_channel("127.0.0.1:7400"))

sent = queues.Send(SendRequest(queue="orders", messages=[Message(body=b"two discs")]))
print("on disk as", sent.results[0].id)

for delivery in queues.Receive(ReceiveRequest(queue="orders")).deliveries:
    print("received", delivery.message.body.decode())
    done = Settlement(receipt=delivery.receipt, ack=Ack())
    queues.Settle(SettleRequest(queue="orders", settlements=[done]))
