"""The managed node: camera images in, label images and instances out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from panoptic_ros.ros.diagnostics import Errors, camera_status, model_status
from panoptic_ros.ros.frame_statistics import CameraStatistics
from panoptic_ros.ros.inputs import CameraInput
from panoptic_ros.ros.loading import Check, Load, check_loadable, load_segmenter
from panoptic_ros.ros.model_service import LoadError, ModelService, reason
from panoptic_ros.ros.outputs import CameraOutputs, CategoryOutputs
from panoptic_ros.ros.parameters import Applies, declare_parameters
from panoptic_ros.ros.pipeline import WARN_PERIOD, Camera, Pipeline
from panoptic_ros.ros.service import OnResult, Service
from panoptic_ros.ros.transitions import explained

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
REPORT_PERIOD = 1.0  # seconds between two /diagnostics


class PanopticNode(LifecycleNode):
    """Segments the newest image of each camera with one model.

    Configure loads the model and makes the publishers, activate subscribes to the cameras,
    deactivate unsubscribes, cleanup frees the device. The executor's thread runs transitions,
    parameters, diagnostics and the subscriptions, which only store the newest image; the worker's
    thread converts and segments, that of the publisher publishes.

    Args:
        load: Makes the segmenter that the parameters describe.
        check: Makes the quick checks before that.
        node_options: Keyword arguments of ``rclpy.node.Node``.

    Raises:
        ValueError, ParameterException: A parameter given at start does not fit.
    """

    def __init__(
        self, load: Load = load_segmenter, check: Check = check_loadable, **node_options: Any
    ) -> None:
        super().__init__("panoptic", **node_options)
        self._state = "unconfigured"
        self._errors = Errors()
        self._models = ModelService(
            load, check, self.create_guard_condition(self._on_loaded).trigger
        )
        self._service = Service(declare_parameters(self), self._models)
        self._cameras: dict[str, Camera] = {}
        self._inputs: dict[str, CameraInput] = {}
        self._categories: CategoryOutputs | None = None
        self._pipeline: Pipeline | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: diagnostics go on while simulated time stands still.
        steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_PERIOD, self._on_timer, clock=steady_clock)
        self.add_on_set_parameters_callback(self._on_set_parameters)

    def start(self) -> None:
        """Configure and activate, if ``autostart`` says so."""
        if self._service.parameters.autostart and self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """End the threads; the batch and the model in progress are waited for."""
        self._models.close()
        if self._pipeline:
            self._pipeline.stop()

    def receive(self, message: Image | CompressedImage, camera: str = "") -> None:
        """Take an image from within this process, as if it had come on the camera's topic.

        Call it in the executor's thread; do not change the message afterwards.

        Raises:
            ValueError: There is no such camera.
            RuntimeError: The node is not active.
        """
        if self._state != "active":
            raise RuntimeError(f"the node is {self._state}; it takes images while it is active")
        if camera not in self._inputs:
            known = ", ".join(map(repr, self._inputs))
            raise ValueError(f"no camera {camera!r}; there are {known}")
        self._inputs[camera].receive(message)

    def add_listener(self, listener: OnResult) -> None:
        """Have a function called with (camera, header, prediction) for every image segmented.

        It is called in the publisher's thread, after the topics are published; what it takes
        delays the next result. While there is one, ``lazy`` holds nothing back.
        """
        self._service.listeners.append(listener)
        self._follow_listeners()

    def report_error(self, text: str) -> None:
        """Show an error in the log and in diagnostics."""
        self._errors.note(text)
        self.get_logger().error(text)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the model, make the publishers and start the worker."""
        self._state, self._errors.persistent = "configuring", ""
        self.get_logger().info(f"loading model {self._service.parameters.model}")
        self._report()
        try:
            self._models.load_now(self._service.parameters)
            self._make_outputs()
        except Exception as error:
            self._clean_up()
            self._errors.persistent = f"cannot configure: {reason(error)}"
            self.report_error(self._errors.persistent)
            self._report()
            return FAILURE
        self._state = "inactive"
        return super().on_configure(state)

    @explained
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Open the publishers and subscribe to the cameras."""
        result = super().on_activate(state)
        for name, camera in self._cameras.items():
            self._inputs[name] = CameraInput(self, name, self._service, camera, self._pipeline)
        self._state = "active"
        return result

    @explained
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and close the publishers; the model stays loaded."""
        self._unsubscribe()
        self._pipeline.discard()
        self._state = "inactive"
        return super().on_deactivate(state)

    @explained
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the model and all that ``on_configure`` made."""
        self._clean_up()
        return super().on_cleanup(state)

    @explained
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Clean up whatever there is, from any state."""
        self._clean_up()
        self._state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to unconfigured after a transition that failed badly."""
        self._clean_up()
        return SUCCESS

    def _make_outputs(self) -> None:
        parameters = self._service.parameters
        self._categories = CategoryOutputs(self)
        self._announce_model()
        for name in parameters.cameras:
            outputs = CameraOutputs(self, name, parameters, self._follow_listeners)
            self._cameras[name] = Camera(outputs, CameraStatistics())
        self._pipeline = Pipeline(self, self._cameras, self._service, self._on_failure)
        self._pipeline.start()

    def _announce_model(self) -> None:
        segmenter = self._models.segmenter
        self._categories.publish(segmenter.name, segmenter.categories)
        height, width = segmenter.resolution
        self.get_logger().info(
            f"model {segmenter.name} in service: {height}x{width}, {segmenter.device}, "
            f"{segmenter.precision}, engine {segmenter.engine}"
        )

    def _unsubscribe(self) -> None:
        for input_ in self._inputs.values():
            input_.destroy()
        self._inputs = {}

    def _follow_listeners(self) -> None:
        for input_ in self._inputs.values():
            input_.follow_listeners()

    def _clean_up(self) -> None:
        self._unsubscribe()
        if self._pipeline:
            self._pipeline.stop()
        for camera in self._cameras.values():
            camera.outputs.destroy()
        if self._categories:
            self._categories.destroy()
        self._cameras = {}
        self._pipeline = self._categories = None
        self._models.drop()
        self._state = "unconfigured"

    # Parameters

    def _on_set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            settings = self._service.parameters.changed(parameters)
            fixed = settings.differs(self._service.parameters, Applies.UNCONFIGURED)
            if fixed and self._models.segmenter:
                raise ValueError(
                    f"{', '.join(fixed)} can only change while the node is unconfigured; it is "
                    f"{self._state}"
                )
            self._models.check(settings)
        except (ValueError, RuntimeError) as error:
            return SetParametersResult(successful=False, reason=reason(error))
        self._service.parameters = settings
        self._follow_listeners()
        if self._models.follow(settings):
            self.get_logger().info(
                f"loading model {settings.model} beside {self._models.segmenter.name}"
            )
        return SetParametersResult(successful=True)

    def _on_loaded(self) -> None:
        """Put the model loaded in the background in service, or say why the old one stays."""
        try:
            if self._models.finish(self._service.parameters):
                self._announce_model()
                self._pipeline.stages.clear()
        except LoadError as error:
            self.report_error(str(error))
            names = self._service.parameters.differs(error.serving, Applies.RELOAD)
            self.set_parameters_atomically(
                [Parameter(name, value=getattr(error.serving, name)) for name in names]
            )

    # Diagnostics

    def _on_timer(self) -> None:
        for input_ in self._inputs.values():
            input_.update()
        self._report()

    def _report(self) -> None:
        name = self.get_name()
        report = DiagnosticArray()
        report.header.stamp = self.get_clock().now().to_msg()
        report.status.append(
            model_status(f"{name}: model", self._state, self._models, self._pipeline, self._errors)
        )
        for camera, input_ in self._inputs.items():
            statistics = self._cameras[camera].statistics
            report.status.append(
                camera_status(f"{name}: {camera or 'camera'}", input_, statistics)
            )
        self._diagnostics.publish(report)

    def _on_failure(self, text: str) -> None:
        if self.context.ok():  # publishing fails while the process is told to end
            self._errors.note(text)
            self.get_logger().error(text, throttle_duration_sec=WARN_PERIOD)


def main(
    args: list[str] | None = None, make_node: Callable[[], PanopticNode] = PanopticNode
) -> None:
    """Run the node until SIGINT or SIGTERM; exit code 1 if its parameters do not fit."""
    endings = (signal.SIGINT, signal.SIGTERM)
    for ending in endings:  # interrupt what runs: a model that loads may take many seconds
        signal.signal(ending, signal.default_int_handler)
    rclpy.init(args=args)
    try:
        node = make_node()
    except (ValueError, ParameterException) as error:
        rclpy.logging.get_logger("panoptic").fatal(f"cannot start: {reason(error)}")
        rclpy.try_shutdown()
        sys.exit(1)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        for ending in endings:  # one is enough; more must not tear the cleaning up
            signal.signal(ending, signal.SIG_IGN)
        node.close()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
