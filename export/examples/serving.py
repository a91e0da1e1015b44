"""TensorFlow Serving: the requests that it takes, over REST and gRPC.

docker run -p 8500:8500 -p 8501:8501 -v RUN/export:/models/encoder -e MODEL_NAME=encoder \
    tensorflow/serving
python serving.py RUN/export/STEP FOLDER --image_size=32 --host=localhost

Without --host no server is asked: the request goes to the SavedModel's own signature, and the
answer is put together as a server would.
"""

import base64
import json
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from folder import parse_args, print_and_save, read_folder
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

options = parse_args(__doc__, ("--host", "", "of a server with ports 8500 and 8501"))
images, _, _ = read_folder(options.folder, options.image_size)
first = next(file for file in sorted(Path(options.folder).glob("*/*")))


def rest_body(instances, signature="serving_default"):
    """The body of POST /v1/models/encoder:predict."""
    return json.dumps({"signature_name": signature, "instances": instances})


def grpc_request(images):
    """The request of PredictionService.Predict."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "encoder"
    request.model_spec.signature_name = "serving_default"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))
    return request


def ask_rest(body):
    if options.host:
        url = f"http://{options.host}:8501/v1/models/encoder:predict"
        with urllib.request.urlopen(urllib.request.Request(url, body.encode())) as answer:
            return np.array(json.load(answer)["predictions"], np.float32)
    asked = json.loads(body)
    signature = model.signatures[asked["signature_name"]]
    ((name, spec),) = signature.structured_input_signature[1].items()
    # As Serving reads JSON: an input called …_bytes holds {"b64": …}.
    rows = [row[name]["b64"] if isinstance(row, dict) else row for row in asked["instances"]]
    rows = [base64.b64decode(row) if isinstance(row, str) else row for row in rows]
    return signature(**{name: tf.constant(rows, spec.dtype)})["features"].numpy()


def ask_grpc(request):
    if options.host:
        with grpc.insecure_channel(f"{options.host}:8500") as open_channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(open_channel)
            response = stub.Predict(request)
    else:
        signature = model.signatures[request.model_spec.signature_name]
        inputs = {name: tf.constant(tf.make_ndarray(x)) for name, x in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for name, value in signature(**inputs).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value.numpy()))
    return tf.make_ndarray(response.outputs["features"])


model = None if options.host else tf.saved_model.load(options.export)
body, request = rest_body(images.tolist()), grpc_request(images)
print(f"REST: {len(body):,} bytes of JSON, gRPC: {request.ByteSize():,} bytes")
features = ask_grpc(predict_pb2.PredictRequest.FromString(request.SerializeToString()))
print_and_save(options, features)
print(f"REST and gRPC differ by {np.abs(ask_rest(body) - features).max():.1e}")
if model is None or "serving_encoded" in model.signatures:
    encoded = [{"image_bytes": {"b64": base64.b64encode(first.read_bytes()).decode()}}]
    print(f"of a file: {list(ask_rest(rest_body(encoded, 'serving_encoded')).shape)}")
