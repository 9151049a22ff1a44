from semiseg.cli.main import main

main()
