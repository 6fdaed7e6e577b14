"""Reading camera images from bags of every kind, and writing the synthetic drive."""

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from panoptic_ros.files.bag import BagError, ImageBag, message_types, write_image_bag
from panoptic_ros.files.camera_messages import image_from_message
from panoptic_ros.files.sources import is_bag
from test.shared_data import shared_path

IMAGE = "sensor_msgs/msg/Image"
STRING = "std_msgs/msg/String"


def images(number):
    return [np.full((4, 6, 3), (10 * i, 20, 30), np.uint8) for i in range(number)]


def image_message(store, stamp, **header):
    time = store.types["builtin_interfaces/msg/Time"](*divmod(stamp, 10**9))
    head = store.types["std_msgs/msg/Header"](**header, stamp=time, frame_id="camera")
    data = np.arange(24, dtype=np.uint8)
    return store.types[IMAGE](head, 2, 4, "bgr8", 0, 12, data)


def write_bag(path, stamps, storage=StoragePlugin.MCAP, topics=("/camera",)):
    """Write a bag with an image of each stamp on each topic, recorded at 0, 1, 2, ... s."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Writer(path, version=9, storage_plugin=storage) as writer:
        text = writer.add_connection("/text", STRING, typestore=store)
        writer.write(text, 0, store.serialize_cdr(store.types[STRING]("hello"), STRING))
        for topic in topics:
            connection = writer.add_connection(topic, IMAGE, typestore=store)
            for index, stamp in enumerate(stamps):
                data = store.serialize_cdr(image_message(store, stamp), IMAGE)
                writer.write(connection, index * 10**9, data)
    return path


def test_a_written_bag_reads_back(tmp_path):
    path = tmp_path / "deep" / "drive"
    assert write_image_bag(path, images(5), 10.0) == 5
    with ImageBag(path) as bag:
        frames = list(bag.frames())
        assert (bag.topic.name, len(bag)) == ("/camera/image_raw", 5)
        assert bag.frame_rate == pytest.approx(10.0)
    assert [frame.stamp for frame in frames] == [10**9 + i * 10**8 for i in range(5)]
    assert [frame.time for frame in frames] == [frame.stamp for frame in frames]
    for frame, image in zip(frames, images(5), strict=True):
        assert np.array_equal(image_from_message(frame.message), image)


def test_a_bag_of_the_same_name_is_replaced(tmp_path):
    write_image_bag(tmp_path / "drive", images(5), 10.0)
    write_image_bag(tmp_path / "drive", images(2), 10.0)
    with ImageBag(tmp_path / "drive") as bag:
        assert len(bag) == 2


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_both_storages_and_their_bare_files(tmp_path, storage):
    path = write_bag(tmp_path / "bag", [7, 8], storage)
    (file,) = path.glob("bag.*")
    for source in (path, file):
        assert is_bag(source)
        with ImageBag(source) as bag:
            assert [frame.stamp for frame in bag.frames()] == [7, 8]


def test_ros_1_bags(tmp_path):
    store = get_typestore(Stores.ROS1_NOETIC)
    with Writer1(tmp_path / "old.bag") as writer:
        connection = writer.add_connection("/camera", IMAGE, typestore=store)
        message = image_message(store, 3_000_000_004, seq=0)
        writer.write(connection, 5, store.serialize_ros1(message, IMAGE))
    with ImageBag(tmp_path / "old.bag") as bag:
        (frame,) = bag.frames()
    assert frame.stamp == 3_000_000_004
    # The second row starts at byte 12; bgr8 is turned to RGB.
    assert image_from_message(frame.message)[1, 0].tolist() == [14, 13, 12]


def test_repeated_stamps_are_made_unique_and_others_kept(tmp_path):
    path = write_bag(tmp_path / "bag", [5, 5, 6, 0, 0, 9])
    with ImageBag(path) as bag:
        assert [frame.stamp for frame in bag.frames()] == [5, 6, 7, 0, 1, 9]


def test_the_first_image_topic_is_taken_unless_one_is_named(tmp_path):
    path = write_bag(tmp_path / "bag", [1], topics=("/rear", "/front"))
    with ImageBag(path) as bag:
        assert bag.topic.name == "/front"
        assert [topic.name for topic in bag.topics] == ["/front", "/rear"]
    with ImageBag(path, "rear") as bag:
        assert bag.topic.name == "/rear"


def test_an_unknown_topic_lists_those_there_are(tmp_path):
    path = write_bag(tmp_path / "bag", [1, 2], topics=("/rear", "/front"))
    with pytest.raises(BagError, match=r"/text.*/front \(.*Image, 2 messages\), /rear"):
        ImageBag(path, "/text")


def test_a_bag_without_images_lists_its_topics(tmp_path):
    with pytest.raises(BagError, match="has no images; its topics: /text"):
        ImageBag(write_bag(tmp_path / "bag", [], topics=()))


def test_what_is_not_a_bag(tmp_path):
    with pytest.raises(BagError, match="there is no bag"):
        ImageBag(tmp_path / "nothing")
    with pytest.raises(BagError, match="cannot read bag"):
        ImageBag(tmp_path)
    (tmp_path / "empty.mcap").write_bytes(b"")
    with pytest.raises(BagError, match="cannot read bag"):
        ImageBag(tmp_path / "empty.mcap")
    assert not is_bag(tmp_path)


def test_a_damaged_bag_is_an_error_that_names_it(tmp_path):
    path = write_bag(tmp_path / "bag", [1, 2])
    file = path / "bag.mcap"
    content = bytearray(file.read_bytes())
    start = content.find(b"camera", 200)
    content[start - 40 : start + 60] = b"\xff" * 100
    file.write_bytes(content)
    with pytest.raises(BagError, match="bag is damaged|cannot read bag"), ImageBag(path) as bag:
        list(bag.frames())


def test_the_messages_of_this_package_are_known():
    fields = dict(message_types().fielddefs["panoptic_ros/msg/PanopticInstanceArray"][1])
    assert {"header", "label_divisor", "instances"} <= set(fields)


def test_a_real_drive():
    with ImageBag(shared_path("bags/camvid_drive")) as bag:
        assert (bag.topic.name, len(bag)) == ("/camera/image_raw/compressed", 101)
        assert bag.frame_rate == pytest.approx(15.0)
        frame = next(bag.frames())
    assert image_from_message(frame.message).shape == (360, 480, 3)
