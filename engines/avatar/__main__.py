"""python -m engines.avatar --host 127.0.0.1 --port 8383 --data FOLDER"""

from pathlib import Path

from engines import serving
from engines.avatar.jobs import Jobs
from engines.avatar.server import create_app


def main() -> None:
    parser = serving.parser("engines.avatar", "A digital human on the CPU, over HTTP.", 8383, ["embedded"])
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="the folder shared with whoever submits; videos are in its temp",
    )
    parser.add_argument("--cue", action="store_true", help="a bar at the bottom shows how loud the recording is")
    asked = parser.parse_args()
    asked.data.mkdir(parents=True, exist_ok=True)
    serving.run(create_app(Jobs(asked.data, cue=asked.cue)), asked.host, asked.port)


if __name__ == "__main__":
    main()
