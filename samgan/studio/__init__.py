"""The local web page: reads run folders and prepared sets, and starts commands of samgan as processes of their own."""
